// The samples of the chosen point, beside their sources and references.

const sampleView = { page: 0, search: "", against: "references", missing: false };
const PAGE = 8;

// The sources of one point with references and samples: [{index, source, references, texts}, …].
function samplesOf(part) {
  const questions = readBlock(`part-${data.asked[part.key]}`);
  const { samples } = readBlock(`part-${part.key}`);
  return samples.map((texts, n) => ({
    index: questions.indices[n],
    source: questions.sources[n] ?? null,
    references: questions.references[n] ?? [],
    texts,
  }));
}

function matching(entries) {
  const wanted = sampleView.search.toLowerCase().trim();
  if (wanted === "") return entries;
  const has = (text) => text !== null && text.toLowerCase().includes(wanted);
  return entries.filter(
    (entry) => [entry.source, ...entry.references, ...entry.texts].some(has) || String(entry.index) === wanted,
  );
}

function sampleEntry(entry) {
  const others =
    sampleView.against === "references" ? entry.references : [entry.source].filter((text) => text !== null);
  const said = entry.source === null ? `source ${entry.index}` : entry.source;
  const references = entry.references.map((text) =>
    el("p", { class: "reference" }, el("span", { class: "tag" }, "reference"), text),
  );
  const compared = sampleView.against === "none" ? [] : others;
  const texts = entry.texts.map((text) =>
    el(
      "li",
      {},
      text === "" ? el("em", { class: "quiet" }, "nothing") : markedText(text, compared, sampleView.missing),
    ),
  );
  return el(
    "article",
    { class: "entry" },
    el("p", { class: "source" }, el("span", { class: "tag" }, `source ${entry.index}`), said),
    references,
    el("ol", {}, texts),
  );
}

// The panel for one point, or one of its seeds. Only the list is drawn anew while one types.
function samplesPanel(part) {
  const entries = samplesOf(part);
  const list = el("div", { class: "entries" });
  const pager = el("nav", { class: "pager", "aria-label": "Pages of samples" });
  const draw = () => {
    const found = matching(entries);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    sampleView.page = Math.min(Math.max(0, sampleView.page), pages - 1);
    const first = sampleView.page * PAGE;
    const turn = (by) => () => {
      sampleView.page += by;
      draw();
    };
    list.replaceChildren(...found.slice(first, first + PAGE).map(sampleEntry));
    if (found.length === 0)
      list.append(
        el(
          "p",
          { class: "quiet" },
          entries.length ? "no source fits the search" : "this page was made without samples",
        ),
      );
    const range = found.length ? `${first + 1}–${Math.min(first + PAGE, found.length)} of ${found.length}` : "0";
    pager.replaceChildren(
      button("‹", { "aria-label": "Page before", disabled: sampleView.page === 0 }, turn(-1)),
      el("span", { "aria-live": "polite" }, `${range} sources`),
      button("›", { "aria-label": "Next page", disabled: sampleView.page === pages - 1 }, turn(1)),
    );
  };
  const search = el("input", {
    type: "search",
    id: "search",
    placeholder: "search  /",
    "aria-label": "Search in sources, references and samples",
  });
  search.value = sampleView.search;
  search.addEventListener("input", () => {
    Object.assign(sampleView, { search: search.value, page: 0 });
    draw();
  });
  const against = el(
    "select",
    { id: "against", "aria-label": "Words are compared with" },
    [
      ["references", "against the nearest reference"],
      ["source", "against the source"],
      ["none", "not marked"],
    ].map(([value, label]) => el("option", { value }, label)),
  );
  against.value = sampleView.against;
  against.addEventListener("change", () => {
    sampleView.against = against.value;
    draw();
  });
  const missing = el("input", { type: "checkbox", id: "missing", checked: sampleView.missing });
  missing.addEventListener("change", () => {
    sampleView.missing = missing.checked;
    draw();
  });
  draw();
  const { shown, all } = data.sources;
  const words = `Of ${all} sources the first ${shown} are in this page; diffq report --page-sources N takes more.`;
  const few = shown < all ? el("p", { class: "quiet" }, words) : null;
  return [
    el("div", { class: "controls" }, search, against, el("label", {}, missing, " missing words too")),
    list,
    few,
    pager,
  ];
}
