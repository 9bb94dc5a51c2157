// The legend, whose entries show and hide; other filters where points differ in model, length or seed; the two axes.

// A marker as in the plot, drawn as SVG.
function markerIcon(line) {
  const shapes = {
    circle: "M8 3a5 5 0 1 0 .01 0z",
    square: "M3.5 3.5h9v9h-9z",
    "triangle-up": "M8 2.5l6 10.5H2z",
    diamond: "M8 2l6 6-6 6-6-6z",
    "triangle-down": "M8 13.5L2 3h12z",
    cross: "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z",
    x: "M4.5 1.8L8 5.3l3.5-3.5 2.7 2.7L10.7 8l3.5 3.5-2.7 2.7L8 10.7l-3.5 3.5-2.7-2.7L5.3 8 1.8 4.5z",
    star: "M8 1.5l2 4.4 4.8.5-3.6 3.2 1 4.7L8 11.9l-4.2 2.4 1-4.7L1.2 6.4l4.8-.5z",
  };
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const dashes = isDashed(data.lines.indexOf(line))
    ? "M0 7h6v2H0zM10 7h6v2h-6z"
    : "M0 7h2v2H0zM5 7h2v2H5zM10 7h2v2h-2zM15 7h1v2h-1z";
  path.setAttribute("d", shapes[line.symbol] ?? dashes);
  path.setAttribute("fill", lineColour(line));
  svg.append(path);
  return svg;
}

// A button that shows and hides what has this value of `by`; with a double click or Shift it alone stays.
function chip(by, value, all, label, icon) {
  const isOn = !state.off[by].has(value);
  const choose = (event) => {
    const off = new Set(state.off[by]);
    if (event.shiftKey) {
      const alone = !off.has(value) && all.every((other) => other === value || off.has(other));
      off.clear();
      if (!alone) all.filter((other) => other !== value).forEach((other) => off.add(other));
    } else if (!off.delete(value)) off.add(value);
    change({ off: { ...state.off, [by]: off } });
    document.querySelector(`[data-chip="${by}"][data-at="${all.indexOf(value)}"]`)?.focus();
  };
  const attributes = { class: "chip", "aria-pressed": String(isOn), "data-chip": by, "data-at": all.indexOf(value) };
  return button([icon, label], { ...attributes, title: "Shift and click: this one alone" }, choose);
}

function drawFilters() {
  const box = byId("filters");
  const all = data.lines.map((line, number) => number);
  const shown = all.filter((number) => state.nulls || !data.lines[number].null);
  const rows = [
    shown.map((number) => chip("line", number, all, data.lines[number].label, markerIcon(data.lines[number]))),
  ];
  for (const [by, word] of groupings()) {
    const values = [...new Set(data.lines.filter((line) => !line.null).map((line) => line[by]))];
    rows.push(values.map((value) => chip(by, value, values, word + value, null)));
  }
  box.replaceChildren(...rows.map((chips) => el("div", { class: "chips" }, chips)));
}

// What lines can be grouped by: with several groups of which one has several lines, and not as another grouping does.
function groupings() {
  const lines = data.lines.filter((line) => !line.null);
  const seen = new Set();
  return [
    ["model", "model "],
    ["length", "length "],
    ["seeds", "seed "],
  ].filter(([by]) => {
    const values = [...new Set(lines.map((line) => line[by]))];
    const pattern = lines.map((line) => values.indexOf(line[by])).join();
    const isNew = values.length > 1 && values.length < lines.length && !seen.has(pattern);
    seen.add(pattern);
    return isNew;
  });
}

function axisChoice(id, axis) {
  const select = byId(id);
  const option = (metric) => el("option", { value: metric.name }, metric.label);
  const [costs, others] = [data.metrics.filter((m) => m.cost), data.metrics.filter((m) => !m.cost)];
  select.append(el("optgroup", { label: "metrics" }, others.map(option)));
  if (costs.length) select.append(el("optgroup", { label: "costs" }, costs.map(option)));
  select.addEventListener("change", () => change({ [axis]: select.value }));
  watch(() => {
    select.value = state[axis];
    select.title = metricOf[state[axis]].signature || metricOf[state[axis]].help;
  });
}

axisChoice("axis-x", "x");
axisChoice("axis-y", "y");
byId("swap").addEventListener("click", () => change({ x: state.y, y: state.x }));
for (const name of ["intervals", "front", "nulls"]) {
  const box = byId(`show-${name}`);
  box.addEventListener("change", () => change({ [name]: box.checked }));
  watch(() => {
    box.checked = state[name];
  });
}
if (!data.lines.some((line) => line.null)) byId("show-nulls").closest("label").hidden = true;
watch((changed) => {
  if (["off", "nulls", "theme"].some((name) => changed.has(name))) drawFilters();
});
