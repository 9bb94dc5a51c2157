"""The rules of the world `grammar`: what can be asked, and every way in which it can be said, with its probability.

A *meaning* is a frame (how, where, why, …) with concepts in its slots. `realise` turns a meaning into one tree of
choices. Drawing a sentence walks that tree, and so does listing all sentences with their probabilities: the two cannot
disagree. Which moves are allowed is graded by a level, 0 to 3. Knows nothing of splits, seeds and tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from diffq.data.grammar_words import NOUN_CLASSES, Concept, concepts, content_words, noun_class


@dataclass(frozen=True)
class Choice:
    """One of several nodes, each with its probability. A tuple of nodes is a sequence; a text is itself."""

    options: tuple[tuple[float, object], ...]


@dataclass(frozen=True)
class Meaning:
    """What is asked: a frame and the concepts in its slots, in a fixed order."""

    frame: str
    slots: tuple[tuple[str, Concept], ...]

    def get(self, slot: str) -> Concept | None:
        return next((c for s, c in self.slots if s == slot), None)

    @property
    def key(self) -> str:
        """A text that no other meaning has."""
        return self.frame + "".join(f"|{slot}={concept[0]}" for slot, concept in self.slots)


OPENINGS: dict[str, tuple[tuple[float, str], ...]] = {
    "how": ((0.5, "how can i"), (0.3, "how do i"), (0.2, "how might i")),
    "where": ((0.5, "where can i"), (0.3, "where do i"), (0.2, "where could i")),
    "why": ((0.5, "why is"), (0.3, "what makes"), (0.2, "how is")),
    "best": ((0.5, "what is the best"), (0.3, "which is the best"), (0.2, "what is the finest")),
    "should": ((0.5, "should i"), (0.3, "must i"), (0.2, "shall i")),
    "cost": ((0.5, "how much does"), (0.3, "how much will"), (0.2, "how much might")),
    "when": ((0.5, "when should i"), (0.3, "when must i"), (0.2, "when shall i")),
    "who": ((0.5, "who can"), (0.3, "who could"), (0.2, "who might")),
    "property": ((0.5, "what is the"), (0.3, "tell me the"), (0.2, "name me the")),
}
"""Rules `opening_FRAME`: how a question may begin, whatever follows. Those of a frame are of one length, or every word
behind them would move, and a small model would learn little else in half a minute."""

MOVES: dict[str, tuple[int, float, str]] = {
    "adverb_last": (1, 1.0, "quickly fix my car -> fix my car quickly"),
    "audience_place_swap": (1, 1.0, "for kids in rome -> in rome for kids"),
    "place_time_swap": (1, 1.0, "in rome today -> today in rome"),
    "actually": (1, 0.4, "how can i sell … -> how can i actually sell …"),
    "at_all": (2, 0.4, "who can fix my car -> who can fix my car at all"),
    "how_come": (2, 1.0, "why is my car so slow -> how come my car is so slow"),
    "which_is_best": (2, 1.0, "what is the best car -> which car is the best"),
    "place_first": (2, 1.0, "how can i sail in rome -> in rome how can i sail"),
    "time_first": (2, 1.0, "how can i sail today -> today how can i sail"),
    "clause_first": (3, 1.5, "how can i sail if i am busy -> if i am busy how can i sail"),
    "price_of": (3, 1.5, "how much does my car cost -> what is the price of my car"),
    "audience_first": (3, 1.5, "what is the best car for kids -> for kids what is the best car"),
}
"""Rules that move or add words: the level from which they apply, their weight beside the setting `moved`, and an
example."""

SYNONYM_RULES = ("verb", "noun", "adjective", "quality", "adverb", "place", "audience", "property", "time", "clause")
"""Rules `synonym_SLOT`: a concept is said by any of its words."""


def rules(level: int) -> tuple[str, ...]:
    """The names of all rules that apply at a level."""
    names = [f"opening_{frame}" for frame in OPENINGS]
    names += [f"synonym_{slot}" for slot in SYNONYM_RULES]
    return (*names, *(name for name, (needed, _, _) in MOVES.items() if level >= needed))


@dataclass(frozen=True)
class Rules:
    """The rules at one level: `moved` is the probability of a move of weight 1."""

    level: int
    moved: float

    def chance(self, move: str) -> float:
        needed, weight, _ = MOVES[move]
        return min(0.5, self.moved * weight) if self.level >= needed else 0.0

    def either(self, move: str, usual: object, moved: object) -> object:
        """The usual form, or with the move's probability the moved one."""
        p = self.chance(move)
        return usual if p == 0 else Choice(((1 - p, usual), (p, moved)))

    def realise(self, meaning: Meaning) -> object:
        """The tree of everything that says this meaning."""
        said = {slot: _synonyms(slot, concept) for slot, concept in meaning.slots}
        return getattr(self, f"_{meaning.frame}", self._action)(meaning.frame, said)

    def _action(self, frame: str, said: dict[str, object]) -> object:
        head: object = _opening(frame)
        if frame in ("how", "should"):
            head = self.either("actually", head, (head, "actually"))
        core: object = (said["verb"], _thing(said))
        if frame == "who":
            core = self.either("at_all", core, (core, "at all"))
        if "adverb" in said:
            core = self.either("adverb_last", (said["adverb"], core), (core, said["adverb"]))
        return self._placed((head, core), said)

    def _placed(self, question: object, said: dict[str, object]) -> object:
        """The question with its place, time and clause behind it or, moved, before it."""
        place, time = said.get("place"), said.get("time")
        if place is not None and time is not None:
            place = ("in", place)
            question = (question, self.either("place_time_swap", (place, time), (time, place)))
        elif place is not None:
            question = self.either("place_first", (question, "in", place), ("in", place, question))
        elif time is not None:
            question = self.either("time_first", (question, time), (time, question))
        if "clause" in said:
            question = self.either("clause_first", (question, said["clause"]), (said["clause"], question))
        return question

    def _why(self, frame: str, said: dict[str, object]) -> object:
        thing = _thing(said)
        why = (_opening(frame), thing, "so", said["quality"])
        return self._placed(self.either("how_come", why, ("how come", thing, "is so", said["quality"])), said)

    def _best(self, frame: str, said: dict[str, object]) -> object:
        noun = (said["adjective"], said["noun"])
        question = self.either("which_is_best", (_opening(frame), noun), ("which", noun, "is the best"))
        whom = ("for", said["audience"])
        if "place" in said:
            where = ("in", said["place"])
            return (question, self.either("audience_place_swap", (whom, where), (where, whom)))
        return self.either("audience_first", (question, whom), (whom, question))

    def _cost(self, frame: str, said: dict[str, object]) -> object:
        thing = _thing(said)
        return self._placed(
            self.either("price_of", (_opening(frame), thing, "cost"), ("what is the price of", thing)), said
        )

    def _property(self, frame: str, said: dict[str, object]) -> object:
        return (_opening(frame), said["property"], "of", said["place"])


def _thing(said: dict[str, object]) -> object:
    return tuple(said[s] for s in ("owner", "adjective", "noun") if s in said)


@cache
def _opening(frame: str) -> Choice:
    return Choice(OPENINGS[frame])


@cache
def _synonyms(slot: str, concept: Concept) -> object:
    weights = {1: (1.0,), 2: (0.65, 0.35), 3: (0.55, 0.3, 0.15)}[len(concept)]
    return concept[0] if len(concept) == 1 else Choice(tuple(zip(weights, concept, strict=True)))


FRAMES: tuple[tuple[float, str, tuple[tuple[str, float], ...]], ...] = (
    (
        0.22,
        "how",
        (("adverb", 0.5), ("owner", 1), ("adjective", 0.35), ("place", 0.2), ("time", 0.1), ("clause", 0.05)),
    ),
    (0.12, "where", (("owner", 1), ("adjective", 0.3), ("place", 0.25), ("time", 0.15))),
    (0.14, "why", (("owner", 1), ("adjective", 0.2), ("quality", 1), ("time", 0.15), ("place", 0.1))),
    (0.1, "best", (("adjective", 1), ("audience", 1), ("place", 0.3))),
    (0.14, "should", (("adverb", 0.4), ("owner", 1), ("adjective", 0.3), ("time", 0.25), ("clause", 0.05))),
    (0.08, "cost", (("owner", 1), ("adjective", 0.5), ("place", 0.3))),
    (0.07, "when", (("adverb", 0.3), ("owner", 1), ("adjective", 0.3), ("clause", 0.05))),
    (0.07, "who", (("adverb", 0.4), ("owner", 1), ("adjective", 0.3), ("place", 0.25))),
    (0.06, "property", (("property", 1), ("place", 1))),
)
"""Each frame's weight and slots; a slot is filled with the probability beside it (1: always). Frames with a thing also
have a noun, and those in which something is done a verb that can be done to it."""

_ACTIONS = ("how", "where", "should", "when", "who")
MOST_SLOTS = 6  # more would make sentences of more than twelve words


def draw_meaning(uniforms: Iterator[float]) -> Meaning:
    """A meaning from the weighted grammar; uniforms are independent numbers in (0, 1)."""
    u, frame_index = next(uniforms), 0
    while frame_index + 1 < len(FRAMES) and u >= FRAMES[frame_index][0]:
        u -= FRAMES[frame_index][0]
        frame_index += 1
    _, frame, optional = FRAMES[frame_index]
    slots: list[tuple[str, Concept]] = []
    if frame != "property":
        group = NOUN_CLASSES[int(next(uniforms) * len(NOUN_CLASSES))]
        if frame in _ACTIONS:
            slots.append(("verb", _one_of(f"verb:{group}", uniforms)))
        slots.append(("noun", _one_of(f"noun:{group}", uniforms)))
    for slot, chance in optional:
        room = len(slots) < MOST_SLOTS and not (slot == "clause" and len(slots) > 4)
        if room and (chance == 1 or next(uniforms) < chance):
            slots.append((slot, _one_of(slot, uniforms)))
    return Meaning(frame, tuple(slots))


def _one_of(category: str, uniforms: Iterator[float]) -> Concept:
    known = concepts(category)
    return known[int(next(uniforms) * len(known))]


def draw(node: object, uniforms: Iterator[float]) -> str:
    """One sentence of the tree."""
    words: list[str] = []
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            words.append(node)
        elif isinstance(node, tuple):
            stack.extend(reversed(node))
        else:
            options = node.options  # type: ignore[attr-defined]
            u = next(uniforms)
            last = 0
            while last + 1 < len(options) and u >= options[last][0]:
                u -= options[last][0]
                last += 1
            stack.append(options[last][1])
    return " ".join(words)


def enumerate_texts(node: object) -> dict[str, float]:
    """Every sentence of the tree and its probability."""
    if isinstance(node, str):
        return {node: 1.0}
    out: dict[str, float] = {}
    if isinstance(node, Choice):
        for p, option in node.options:
            for text, q in enumerate_texts(option).items():
                out[text] = out.get(text, 0.0) + p * q
        return out
    out = {"": 1.0}
    for part in node:  # type: ignore[attr-defined]
        tails = enumerate_texts(part)
        joined: dict[str, float] = {}
        for head, p in out.items():
            for tail, q in tails.items():
                text = f"{head} {tail}" if head else tail
                joined[text] = joined.get(text, 0.0) + p * q
        out = joined
    return out


def candidates(text: str) -> list[Meaning]:
    """The meanings whose concepts are those of the text's content words, one for each frame that takes them."""
    known = content_words()
    found: dict[str, Concept] = {}
    for word in text.split():
        if word in known:
            slot, concept = known[word]
            if slot in found:
                return []
            found[slot] = concept
    out = []
    for _, frame, optional in FRAMES:
        order = [s for s in ("verb", "noun") if s in found] + [s for s, _ in optional if s in found]
        needed = {s for s, chance in optional if chance == 1}
        needed |= {"verb"} if frame in _ACTIONS else set()
        needed |= {"noun"} if frame != "property" else set()
        taken = {s for s, _ in optional} | {"verb", "noun"}
        if needed <= set(found) <= taken and ("verb" not in found or frame in _ACTIONS) and _can_be(found):
            out.append(Meaning(frame, tuple((s, found[s]) for s in order)))
    return out


def _can_be(found: dict[str, Concept]) -> bool:
    return "verb" not in found or found["verb"] in concepts(f"verb:{noun_class(found['noun'])}")


def all_words(level: int) -> tuple[str, ...]:
    """Every word that any sentence of a level can have, sorted."""
    words = {word for _, concept in content_words().values() for said in concept for word in said.split()}
    words.update(word for options in OPENINGS.values() for _, text in options for word in text.split())
    words.update(["in", "for", "of", "so", "cost"])
    for move, (needed, _, _) in MOVES.items():
        words.update(_WORDS_OF_MOVES.get(move, "").split() if level >= needed else ())
    return tuple(sorted(words))


_WORDS_OF_MOVES = {
    "actually": "actually",
    "at_all": "at all",
    "how_come": "how come is",
    "which_is_best": "which is the best",
    "price_of": "what is the price of",
}
