// All points as a table that sorts by any column, and copies itself as CSV, Markdown or LaTeX in the order it shows.

const order = { by: null, falling: false };
const numeric = data.metrics.map((metric) => metric.name);

// Columns: a heading, the value that sorts (null goes last), and what stands in the cell.
const columns = [
  {
    head: "sampler",
    key: (point) => lineOf(point).label,
    cell: (point) => [markerIcon(lineOf(point)), lineOf(point).label],
  },
  { head: "dials", key: (point) => dialWords(point), cell: dialWords },
  ...(new Set(data.points.map((point) => point.length).filter((length) => length && length !== "free")).size > 1
    ? [{ head: "length", key: (point) => point.length, cell: (point) => point.length || "–" }]
    : []),
  ...(data.points.some((point) => point.parts.length > 1)
    ? [{ head: "seeds", key: (point) => point.parts.length, cell: (point) => String(point.parts.length || "–") }]
    : []),
  ...numeric.map((name) => ({
    name,
    head: metricOf[name].label,
    key: (point) => figureOf(point, name)?.[0] ?? null,
    cell: (point) => figureCell(point, name),
  })),
];

function dialWords(point) {
  return point.dials.map(([name, value]) => `${name} ${value}`).join(", ") || "–";
}

function figureCell(point, name) {
  const figure = figureOf(point, name);
  if (figure === null) return "–";
  if (!state.intervals || figure[1] === null) return shortNumber(figure[0]);
  const inner = `[${shortNumber(figure[1])}, ${shortNumber(figure[2])}]`;
  const spread = figure[3] === null ? null : el("span", { class: "interval" }, `sd of seeds ${shortNumber(figure[3])}`);
  return [shortNumber(figure[0]), " ", el("span", { class: "interval" }, inner), spread];
}

// The numbers of the points that are shown, in the order of the table.
function tableOrder() {
  const numbers = data.points.map((point, at) => at).filter((at) => isPointShown(data.points[at]));
  if (order.by === null) return numbers;
  const { key } = columns[order.by];
  const turn = order.falling ? -1 : 1;
  const words = new Intl.Collator("en", { numeric: true });
  return numbers.sort((a, b) => {
    const [one, other] = [key(data.points[a]), key(data.points[b])];
    if (one === null || other === null) return (one === null) - (other === null);
    const differ = typeof one === "number" ? one - other : words.compare(one, other);
    return turn * differ || a - b;
  });
}

// First a figure's better end, then the other, then the order of the sweep.
function sortBy(column) {
  const first = numeric.includes(columns[column].name) && signOf(columns[column].name) >= 0;
  if (order.by !== column) Object.assign(order, { by: column, falling: first });
  else if (order.falling === first) order.falling = !first;
  else order.by = null;
  drawTable();
  document.querySelectorAll("#table th button")[column].focus();
}

function headRow() {
  const heads = columns.map((column, at) => {
    const sorted = order.by === at ? (order.falling ? "descending" : "ascending") : "none";
    const arrow = order.by === at ? (order.falling ? " ↓" : " ↑") : "";
    const title = column.name ? `${metricOf[column.name].help} · ${metricOf[column.name].signature}` : null;
    const name = column.name ? "number" : "";
    return el(
      "th",
      { scope: "col", class: name, "aria-sort": sorted, title },
      button(column.head + arrow, {}, () => sortBy(at)),
    );
  });
  return el("tr", {}, heads);
}

function bodyRow(at, front) {
  const point = data.points[at];
  const isNull = lineOf(point).null;
  const choose = () => change({ chosen: at });
  const attributes = {
    "data-at": at,
    class: [isNull ? "null" : "", front.has(at) ? "front" : ""].join(" "),
    "aria-selected": isNull ? null : String(state.chosen === at),
    tabindex: isNull ? null : "-1",
    onclick: isNull ? () => {} : choose,
  };
  const cells = columns.map((column, n) => {
    const inner = column.cell(point);
    const best = n === 0 && front.has(at) ? el("span", { class: "star", title: "on the Pareto front" }, " ★") : null;
    return el("td", { class: column.name ? "number" : "" }, inner, best);
  });
  return el("tr", attributes, cells);
}

function drawTable() {
  const numbers = tableOrder();
  const front = paretoFront(numbers.filter((at) => isDrawn(data.points[at]) && !lineOf(data.points[at]).null));
  const rows = numbers.map((at) => bodyRow(at, front));
  const first =
    rows.find((row) => row.getAttribute("aria-selected") === "true") ??
    rows.find((row) => row.tabIndex === -1 && row.hasAttribute("tabindex"));
  first?.setAttribute("tabindex", "0");
  const count = numbers.filter((at) => !lineOf(data.points[at]).null).length;
  const copies = [
    ["csv", "CSV"],
    ["markdown", "Markdown"],
    ["latex", "LaTeX"],
  ].map(([format, label]) =>
    button(label, { "data-copy": format }, (event) => copyText(exportText(format), event.currentTarget)),
  );
  const scroll = byId("table").querySelector(".scroll")?.scrollLeft ?? 0;
  byId("table").replaceChildren(
    el(
      "div",
      { class: "head" },
      el("h2", {}, `${count} points`),
      el("div", { class: "buttons" }, el("span", { class: "quiet" }, "copy as"), copies),
    ),
    el(
      "div",
      { class: "scroll", tabindex: "-1" },
      el("table", { onkeydown: tableKeys }, el("thead", {}, headRow()), el("tbody", {}, rows)),
    ),
    el(
      "p",
      { class: "quiet" },
      "★ on the Pareto front of the axes chosen above. A heading sorts; it says what it is when pointed at.",
    ),
  );
  byId("table").querySelector(".scroll").scrollLeft = scroll;
}

// The rows that are shown, in their order, as frontier.csv, .md and .tex have them.
function exportText(format) {
  const { before, rows, after } = data.exports[format];
  return (
    before +
    tableOrder()
      .map((at) => rows[at])
      .join("") +
    after
  );
}

function tableKeys(event) {
  const row = event.target.closest("tbody tr");
  if (row === null) return;
  const rows = [...row.parentElement.querySelectorAll("tr[tabindex]")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step !== undefined) {
    event.preventDefault();
    const next = rows[rows.indexOf(row) + step];
    if (next) {
      change({ chosen: Number(next.dataset.at) });
      byId("table").querySelector(`tr[data-at="${next.dataset.at}"]`).focus();
    }
  } else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    change({ chosen: Number(row.dataset.at) });
    byId("point").focus();
  }
}

watch((changed) => {
  if (changed.size === 1 && changed.has("chosen")) {
    for (const row of document.querySelectorAll("#table tr[tabindex]")) {
      const isChosen = Number(row.dataset.at) === state.chosen;
      row.setAttribute("aria-selected", String(isChosen));
      row.tabIndex = isChosen ? 0 : -1;
    }
    return;
  }
  drawTable();
});
