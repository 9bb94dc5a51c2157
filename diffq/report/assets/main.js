// What stands around the frontier, the theme, the keys of the whole page, and the first drawing.

// A table that Python made: cells are text, with a line each where they have several.
function plainTable({ title, heads, cells, notes }) {
  const lines = (text) => text.split("\n").flatMap((part, n) => (n ? [el("br"), part] : [part]));
  const isNumber = (column) => column > 0 && cells.every((row) => /^[-+−–\d]/.test(row[column] || "–"));
  const row = (tag) => (texts) =>
    el(
      "tr",
      {},
      texts.map((text, n) => el(tag, { class: isNumber(n) ? "number" : "" }, lines(text))),
    );
  return el(
    "section",
    { class: heads.length > 4 ? "card broad" : "card" },
    el("h2", {}, title),
    el(
      "div",
      { class: "scroll" },
      el("table", {}, el("thead", {}, row("th")(heads)), el("tbody", {}, cells.map(row("td")))),
    ),
    notes.map((note) => el("p", { class: "quiet" }, note)),
  );
}

// A picture that Python drew, on paper whatever the theme.
function plainPicture({ title, source }) {
  const image = el("img", { src: source, alt: title, class: "paper" });
  return el("section", { class: "card broad" }, el("h2", {}, title), el("div", { class: "scroll" }, image));
}

function drawAround() {
  byId("title").textContent = data.title;
  byId("subtitle").textContent = `${data.name} · ${data.subtitle}`;
  byId("tables").replaceChildren(...data.tables.map(plainTable), ...(data.pictures || []).map(plainPicture));
  byId("notes").hidden = data.notes.length === 0;
  byId("notes").replaceChildren(
    el("h2", {}, "Notes"),
    el(
      "ul",
      {},
      data.notes.map((note) => el("li", {}, note)),
    ),
  );
  const versions = Object.entries(data.versions).map(([name, value]) => `${name} ${value}`);
  byId("footer").textContent = ["made by diffq report", ...versions].join(" · ");
}

// --- light and dark: what the system says, until the reader says otherwise -------------------------------------------

const systemDark = matchMedia("(prefers-color-scheme: dark)");
let theme = null;

// Pages opened as files may be forbidden to remember anything.
function remembered() {
  try {
    return localStorage.getItem("diffq-theme");
  } catch {
    return null;
  }
}

function setTheme(name, keep) {
  theme = name;
  document.documentElement.dataset.theme = name;
  byId("theme-button").textContent = name === "dark" ? "Light" : "Dark";
  if (keep) {
    try {
      localStorage.setItem("diffq-theme", name);
    } catch {
      // then it holds for this visit alone
    }
  }
}

function changeTheme(name, keep) {
  setTheme(name, keep);
  change({ theme: name });
}

systemDark.addEventListener("change", () => {
  if (remembered() === null) changeTheme(systemDark.matches ? "dark" : "light", false);
});
byId("theme-button").addEventListener("click", () => changeTheme(theme === "dark" ? "light" : "dark", true));

// Paper is white, and has its own width.
let themeOnScreen = null;
addEventListener("beforeprint", () => {
  themeOnScreen = theme;
  changeTheme("light", false);
  Plotly.relayout(plotBox, { width: 680, height: 430, autosize: false });
});
addEventListener("afterprint", () => {
  Plotly.relayout(plotBox, { width: null, height: null, autosize: true });
  changeTheme(themeOnScreen, false);
});

// --- keys of the whole page -----------------------------------------------------------------------------------------

function toggleHelp(show = byId("help").hidden) {
  byId("help").hidden = !show;
  byId("help-button").setAttribute("aria-expanded", String(show));
}

byId("help-button").addEventListener("click", () => toggleHelp());

const KEYS = {
  "?": () => toggleHelp(),
  i: () => change({ intervals: !state.intervals }),
  f: () => change({ front: !state.front }),
  n: () => change({ nulls: !state.nulls }),
  t: () => byId("theme-button").click(),
  "/": () => byId("search")?.focus(),
  " ": () => player.show?.toggle(),
  ",": () => player.show?.back(),
  ".": () => player.show?.on(),
};

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape") {
    toggleHelp(false);
    change({ chosen: null });
    plotBox.focus();
    return;
  }
  const typing = event.target.matches("input:not([type=checkbox]):not([type=range]), select, textarea");
  const presses = event.key === " " && event.target.matches("button, input, summary, tr");
  if (typing || presses || !(event.key in KEYS) || event.defaultPrevented) return;
  if (event.key === " " && player.show === null) return;
  event.preventDefault();
  KEYS[event.key]();
});

addEventListener("hashchange", readAddress);

setTheme(remembered() ?? (systemDark.matches ? "dark" : "light"), false);
drawAround();
readAddress();
for (const look of watchers) look(new Set(["x", "y", "off", "chosen", "theme"]));
document.documentElement.dataset.ready = "yes";
