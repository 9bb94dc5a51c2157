"""The words of the world `grammar`: every line is one concept, its words are its synonyms, commonest first.

A content word belongs to exactly one concept, so a sentence tells which concepts it is about. Knows nothing of
sentences.
"""

from __future__ import annotations

from functools import cache

_NOUNS = {
    "machine": """car automobile vehicle;phone handset mobile;laptop notebook computer;bike bicycle;camera;printer;
        fridge refrigerator;television telly;clock timepiece;radio wireless;engine motor;lamp light;oven stove;drone""",
    "garment": "shirt blouse;jacket coat;dress gown;hat cap;scarf shawl;belt;sweater jumper;suit",
    "building": "house home residence;flat apartment;garage carport;kitchen;roof;garden yard;office workplace;barn;"
    "cabin hut",
    "document": "letter note;essay paper;book novel;report;poem verse;resume;story tale;song tune;speech talk;"
    "contract agreement",
    "food": "cake;bread loaf;soup stew;chicken;steak;pizza;salad;pasta;sandwich;curry;omelette;pie",
    "animal": "dog hound;cat feline;horse stallion;parrot;rabbit bunny;donkey mule;goat;hamster",
}

_VERBS = {
    "fix repair mend": "machine garment building",
    "buy purchase acquire": "machine garment building document food animal",
    "sell peddle": "machine garment building animal",
    "clean wash scrub": "machine garment building animal",
    "build construct": "machine building",
    "find locate discover": "machine garment building document animal",
    "improve enhance": "building document food",
    "cook prepare": "food",
    "choose select pick": "machine garment building document food animal",
    "protect guard": "machine building animal",
    "move transport": "machine animal",
    "explain describe clarify": "document",
    "draw sketch": "machine building animal",
    "send ship mail": "machine garment document food",
    "borrow rent": "machine garment building",
    "write compose draft": "document",
    "replace swap": "machine garment document",
    "insure": "machine building animal",
    "paint decorate": "machine building",
    "measure gauge": "garment building animal",
    "feed nourish": "animal",
    "train coach": "animal",
    "sew stitch": "garment",
    "translate interpret": "document",
    "publish release": "document",
    "test examine inspect": "machine building food document",
    "taste sample": "food",
    "photograph film": "machine building food animal garment",
}

_PLAIN = {
    "adjective": """old aged ancient;new modern;big large huge;small little tiny;cheap inexpensive affordable;
        broken damaged faulty;dirty filthy;pretty beautiful lovely;strange odd weird;simple plain basic;famous renowned;
        heavy weighty;noisy loud;dark gloomy;strong sturdy robust;favorite preferred;shiny glossy;ugly hideous;
        red scarlet;blue azure;green;white;black;round circular""",
    "quality": """expensive costly pricey;slow sluggish;dull boring tedious;popular beloved;rare scarce;
        dangerous risky hazardous;useful handy;fragile delicate;complicated complex;hot;cold chilly;soft""",
    "adverb": """quickly rapidly swiftly;easily effortlessly;safely securely;properly correctly;slowly gradually;
        quietly silently;carefully cautiously;regularly routinely;cleverly smartly;secretly covertly;personally;
        neatly""",
    "place": """london;paris;berlin;rome;tokyo;india;china;canada;brazil;spain;egypt;mexico;kenya;norway;chile;
        america usa;england britain;holland netherlands;persia iran;thailand siam;myanmar burma;texas;boston;chicago;
        sydney;madrid;moscow;dubai;mumbai bombay;istanbul constantinople;peru;cuba;poland;greece hellas;iceland""",
    "audience": """kids children;beginners novices;students pupils;seniors elders;families;tourists travellers;women;
        men;experts professionals;teenagers adolescents;couples;farmers growers""",
    "property": """capital;population;currency money;climate weather;president leader;anthem;flag banner;
        religion faith;area size;history past""",
    "owner": "my;your;our;their;his;her;this;that",
}

# A few words that belong together: the content words alone tell which concept it is.
_PHRASES = {
    "time": """today;tonight;tomorrow;at night;at dawn|at daybreak;on sunday;on monday;during winter;
        during summer|during summertime;during autumn|during fall;after work;before dinner|before supper;
        over christmas|over xmas;next week;next year""",
    "clause": """if i am busy|if i am occupied;if i am poor|if i am broke;when i am tired|when i am exhausted;
        when i am sick|when i am ill;if it is raining|if it is pouring;if it is snowing;
        while i am travelling|while i am touring;once i am retired""",
}

Concept = tuple[str, ...]
"""The synonyms of one concept, commonest first; each is a word or a short phrase."""


@cache
def concepts(category: str) -> tuple[Concept, ...]:
    """The concepts of one category. Nouns are `noun:CLASS`; verbs are `verb:CLASS`, what can be done to that class."""
    kind, _, group = category.partition(":")
    if kind == "verb":
        return tuple(tuple(words.split()) for words, groups in _VERBS.items() if group in groups.split())
    if category in _PHRASES:
        return tuple(tuple(w.strip() for w in line.split("|")) for line in _PHRASES[category].split(";"))
    lines = _NOUNS[group] if kind == "noun" else _PLAIN[category]
    return tuple(tuple(line.split()) for line in lines.split(";"))


NOUN_CLASSES = tuple(_NOUNS)


@cache
def content_words() -> dict[str, tuple[str, Concept]]:
    """Each content word's slot (`verb`, `noun`, `adjective`, …) and concept; phrases are entered by their last word."""
    slots = [("noun", f"noun:{c}") for c in NOUN_CLASSES] + [("verb", f"verb:{c}") for c in NOUN_CLASSES]
    slots += [(name, name) for name in (*_PLAIN, *_PHRASES)]
    return {
        words.split()[-1]: (slot, concept)
        for slot, category in slots
        for concept in concepts(category)
        for words in concept
    }


@cache
def noun_class(noun: Concept) -> str:
    """The class of a noun concept."""
    return next(c for c in NOUN_CLASSES if noun in concepts(f"noun:{c}"))
