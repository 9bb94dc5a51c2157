// The three parts of the page, one at a time: how it begins, a text with its grades, how it ends.

const parts = ["start", "rating", "end"];
let shown = "";
let waiting = 0; // the timer of going on after a rating

function show(part) {
  shown = part;
  for (const name of parts) byId(name).hidden = name !== part;
  byId("save-early").hidden = part !== "rating" || ratedCount() === 0;
  showProgress();
  window.scrollTo(0, 0);
}

function showProgress() {
  const [count, all] = [ratedCount(), data.items.length];
  byId("progress").textContent = `${count} of ${all} rated`;
  byId("filled").style.width = `${(100 * count) / all}%`;
  byId("bar").setAttribute("aria-valuemax", all);
  byId("bar").setAttribute("aria-valuenow", count);
  const warning = byId("warning");
  warning.hidden = keeps;
  warning.textContent = keeps ? "" : "This browser keeps nothing of this page: save your ratings before you close it.";
}

const wordOf = (grade) => data.words[grade] ?? "";

function showStart() {
  const count = data.items.length;
  byId("what").textContent = `You will read ${count} texts, one at a time, and say how good each is.`;
  byId("start-question").textContent = data.question;
  const named = Object.entries(data.words).map(([grade, word]) => el("li", {}, el("b", {}, grade), ` ${word}`));
  byId("start-scale").replaceChildren(...named);
  byId("key-low").textContent = lowest;
  byId("key-high").textContent = highest === 10 ? "9" : highest;
  byId("name").value ||= held.rater; // nothing that is being typed is lost
  byId("begin").textContent = ratedCount() ? "Go on" : "Begin";
  show("start");
}

function makeGrades() {
  byId("question").textContent = data.question;
  const grades = [];
  for (let grade = lowest; grade <= highest; grade += 1) {
    const word = wordOf(grade);
    const attributes = { class: "grade", "data-grade": grade, "aria-label": word ? `${grade}, ${word}` : `${grade}` };
    grades.push(button("", attributes, () => choose(grade)));
    grades.at(-1).append(el("b", {}, `${grade}`), el("span", {}, word));
  }
  byId("grades").replaceChildren(...grades);
  byId("grades").classList.toggle("many", grades.length > 7);
}

function showItem(at) {
  clearTimeout(waiting);
  waiting = 0;
  held.at = at;
  keep();
  const item = data.items[at];
  byId("source-part").hidden = item.source === "";
  byId("text-head").hidden = item.source === "";
  byId("source").textContent = item.source;
  const empty = item.text.trim() === "";
  byId("text").textContent = empty ? "(there is no text)" : item.text;
  byId("text").classList.toggle("empty", empty);
  byId("place").textContent = `${at + 1} / ${data.items.length}`;
  byId("back").disabled = at === 0;
  showGrade();
  show("rating");
  byId("item").focus({ preventScroll: true });
}

function showGrade() {
  const rating = ratingOf(data.items[held.at]);
  for (const grade of byId("grades").children) {
    grade.setAttribute("aria-pressed", String(Number(grade.dataset.grade) === rating));
  }
}

// Rates the text that is shown and goes on, after a moment in which one sees what was chosen.
function choose(grade) {
  if (waiting) return; // a key held down rates one text, not the next ones too
  rate(data.items[held.at], grade);
  showGrade();
  showProgress();
  waiting = setTimeout(() => step(1), 220);
}

function step(by) {
  const at = held.at + by;
  if (at < 0) return;
  if (at < data.items.length) showItem(at);
  else showEnd();
}

const firstUnrated = () => data.items.findIndex((item) => ratingOf(item) === null);

function showEnd() {
  clearTimeout(waiting);
  waiting = 0;
  const [count, all] = [ratedCount(), data.items.length];
  byId("end-head").textContent = count === all ? "All rated. Thank you!" : `${all - count} of ${all} are not rated yet`;
  byId("end-said").textContent =
    count === all
      ? "Now save your ratings, and send the file to whoever gave you this page."
      : "You can go on now or later. What is rated can be saved as it is, and counts.";
  byId("left").hidden = count === all;
  byId("saved").textContent = held.saved && held.saved === count ? "These ratings have been saved to a file." : "";
  show("end");
  byId("end-head").focus({ preventScroll: true });
}

function saveFile() {
  const file = ratingsFile();
  const name = `ratings-${data.study}-${data.page}-${held.rater.replace(/[^\p{L}\p{N}]+/gu, "_") || "rater"}.json`;
  const address = URL.createObjectURL(new Blob([`${JSON.stringify(file, null, 1)}\n`], { type: "application/json" }));
  const link = el("a", { href: address, download: name, class: "hidden" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  held.saved = file.rated;
  keep();
  byId("saved").textContent = `Saved as ${name}. Please send it to whoever gave you this page.`;
}

// Light or dark: as the system has it, until the rater says otherwise.
function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

const dark = window.matchMedia("(prefers-color-scheme: dark)");
let chosenTheme = "";
const themeNow = () => chosenTheme || (dark.matches ? "dark" : "light");
dark.addEventListener("change", () => showTheme(themeNow()));
byId("theme").addEventListener("click", () => {
  chosenTheme = themeNow() === "dark" ? "light" : "dark";
  showTheme(chosenTheme);
});

document.addEventListener("keydown", (event) => {
  if (shown !== "rating" || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (/^[0-9]$/.test(event.key) && isGrade(Number(event.key))) choose(Number(event.key));
  else if (event.key === "0" && highest === 10) choose(10);
  else return;
  event.preventDefault();
});

byId("who").addEventListener("submit", (event) => {
  event.preventDefault();
  held.rater = byId("name").value.trim();
  if (held.rater === "") return;
  keep();
  if (ratedCount() === data.items.length) showEnd();
  else showItem(held.at);
});
byId("back").addEventListener("click", () => step(-1));
byId("on").addEventListener("click", () => step(1));
byId("left").addEventListener("click", () => showItem(firstUnrated()));
byId("again").addEventListener("click", () => showItem(0));
byId("save").addEventListener("click", saveFile);
byId("save-early").addEventListener("click", showEnd);
byId("copy").addEventListener("click", () => copyText(JSON.stringify(ratingsFile()), byId("copy")));
byId("load").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", async () => {
  const [file] = byId("file").files;
  if (!file) return;
  const wrong = takeFile(await file.text());
  byId("file").value = "";
  byId("warning").textContent = wrong;
  byId("warning").hidden = wrong === "";
  if (wrong === "") {
    held.at = Math.max(0, firstUnrated());
    showStart();
  }
});
// The same page in a second window, or in one that was closed a moment ago: both have what was rated in either.
window.addEventListener("storage", (event) => {
  if (event.key !== place || event.newValue === null) return;
  hear(event.newValue);
  if (shown === "end") showEnd();
  else if (shown === "start") showStart();
  else {
    showGrade();
    showProgress();
  }
});

recall();
showTheme(themeNow());
makeGrades();
if (held.rater !== "" && ratedCount() > 0 && ratedCount() < data.items.length) showItem(held.at);
else if (held.rater !== "" && ratedCount() === data.items.length) showEnd();
else showStart();
document.documentElement.dataset.ready = "yes";
