// What the reader has chosen, in one place. Whoever shows it asks to be called when it changes; what a link should
// restore (axes, point) stands in the address behind `#`.

const data = readBlock("data");
const metricOf = Object.fromEntries(data.metrics.map((metric) => [metric.name, metric]));

const state = {
  x: data.x,
  y: data.y,
  chosen: null, // the number of a point
  intervals: true,
  front: true,
  nulls: true,
  off: { line: new Set(), model: new Set(), length: new Set(), seeds: new Set() }, // what is filtered away, by what
};

const watchers = [];

// Calls `look(changed)` after every change; `changed` holds the names of what changed.
function watch(look) {
  watchers.push(look);
}

function change(changes) {
  const changed = new Set(Object.keys(changes).filter((key) => key === "off" || state[key] !== changes[key]));
  if (changed.size === 0) return;
  Object.assign(state, changes);
  for (const look of watchers) look(changed);
  writeAddress();
}

// Whether a line passes the filters. Null lines have a switch of their own.
function isShown(line, number) {
  const { off } = state;
  if (off.line.has(number)) return false;
  return line.null ? state.nulls : ["model", "length", "seeds"].every((by) => !off[by].has(line[by]));
}

const lineOf = (point) => data.lines[point.line];
const isPointShown = (point) => isShown(lineOf(point), point.line);

// The figure [value, low, high, spread between seeds] of a point, or null.
const figureOf = (point, name) => point.figures[name] ?? null;
const isDrawn = (point) =>
  isPointShown(point) && figureOf(point, state.x) !== null && figureOf(point, state.y) !== null;

function writeAddress() {
  const said = new URLSearchParams();
  if (state.x !== data.x) said.set("x", state.x);
  if (state.y !== data.y) said.set("y", state.y);
  if (state.chosen !== null) said.set("point", data.points[state.chosen].id);
  const hash = said.toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

// Takes what the address says; names that this page does not have are passed over.
function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const changes = {};
  for (const axis of ["x", "y"]) {
    if (said.get(axis) in metricOf) changes[axis] = said.get(axis);
  }
  const at = data.points.findIndex((point) => point.id === said.get("point"));
  changes.chosen = at < 0 ? null : at;
  change(changes);
}
