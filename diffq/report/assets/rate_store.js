// What a rater has said, in memory and in this browser. The name under which it is kept holds the study's hash and the
// page's number, so that two studies, or two raters' pages, do not mix.

const data = readBlock("data");
const [lowest, highest] = data.scale;
const itemAt = new Map(data.items.map((item, at) => [item.id, at]));
const place = `diffq-ratings-${data.study}-${data.page}`;

const held = { rater: "", ratings: {}, at: 0, saved: 0 }; // saved: how many ratings the last file had; 0: not these
let keeps = true; // whether this browser keeps anything

const isGrade = (value) => Number.isInteger(value) && value >= lowest && value <= highest;
const ratingOf = (item) => held.ratings[item.id]?.rating ?? null;
const ratedCount = () => Object.keys(held.ratings).length;

// The ratings of this page's items among what was read; whatever else it held is passed over.
function wholeRatings(read) {
  const entries = Object.entries(read && typeof read === "object" ? read : {});
  return Object.fromEntries(entries.filter(([id, said]) => itemAt.has(id) && isGrade(said?.rating)));
}

// Reads what is kept here. Nothing is written under its name meanwhile: what another window has just said may not have
// come through yet, and would be lost.
function recall() {
  try {
    localStorage.setItem(`${place}-tried`, "");
    localStorage.removeItem(`${place}-tried`);
    const text = localStorage.getItem(place);
    const read = text === null ? {} : JSON.parse(text);
    held.rater = typeof read.rater === "string" ? read.rater : "";
    held.ratings = wholeRatings(read.ratings);
    held.at = Number.isInteger(read.at) && read.at >= 0 && read.at < data.items.length ? read.at : 0;
    held.saved = Number.isInteger(read.saved) ? read.saved : 0;
  } catch {
    keeps = false;
  }
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify(held));
  } catch {
    keeps = false;
  }
}

function rate(item, rating) {
  held.ratings[item.id] = { rating, at: new Date().toISOString() };
  held.saved = 0;
  keep();
}

// Adds ratings from elsewhere to these; of two of one text the later one holds.
function join(read) {
  for (const [id, said] of Object.entries(wholeRatings(read.ratings))) {
    if (held.ratings[id]?.at >= said.at) continue;
    held.ratings[id] = said;
    held.saved = 0;
  }
  if (held.rater === "" && typeof read.rater === "string") held.rater = read.rater;
}

// Another window has kept what it holds: this one has that too now, and keeps what the other did not have.
function hear(text) {
  const read = JSON.parse(text);
  join(read);
  const had = wholeRatings(read.ratings);
  if (Object.entries(held.ratings).some(([id, said]) => !(had[id]?.at >= said.at))) keep();
}

// What is saved to a file, and read by `diffq mos import`.
function ratingsFile() {
  const inOrder = data.items.filter((item) => item.id in held.ratings);
  return {
    format: "diffq-ratings",
    version: 1,
    study: data.study,
    page: data.page,
    rater: held.rater,
    scale: data.scale,
    items: data.items.length,
    rated: inOrder.length,
    ratings: Object.fromEntries(inOrder.map((item) => [item.id, held.ratings[item.id]])),
  };
}

// Takes over a file that was saved on another device; returns what is wrong with it, or "".
function takeFile(text) {
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    return "This is no file of ratings.";
  }
  if (read?.format !== "diffq-ratings") return "This is no file of ratings.";
  if (read.study !== data.study || read.page !== data.page) return "This file was saved from another page than this one.";
  join(read);
  keep();
  return "";
}
