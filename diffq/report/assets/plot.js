// The frontier, drawn by plotly.js: a line and markers for every sampler, intervals, the Pareto front, null lines.
// Up and to the right is better: a metric of which less is better runs backwards. A cost runs forwards.

const plotBox = byId("plot");
const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
// The one colour of the palette that a dark page would swallow.
const lineColour = (line) =>
  line.null ? colourOf("quiet") : line.colour === "#000000" ? colourOf("ink") : line.colour;

// Text for plotly, which reads a few tags in what it shows.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const runsBackwards = (name) => signOf(name) < 0 && !metricOf[name].cost;

// From the least to the greatest of what is drawn of some points, intervals included; null without points.
function reachOf(name, numbers) {
  const ends = numbers.flatMap((n) =>
    figureOf(data.points[n], name)
      .slice(0, 3)
      .filter((value) => value !== null),
  );
  return ends.length === 0 ? null : [Math.min(...ends), Math.max(...ends)];
}

// Figures that say how many times as much, and lie far apart, stand on a logarithmic axis.
function isLogarithmic(name, numbers) {
  const [low, high] = reachOf(name, numbers) ?? [0, 0];
  return metricOf[name].ratio && low > 0 && high >= data.far * low;
}

function axisTitle(name, logarithmic) {
  const metric = metricOf[name];
  const backwards = runsBackwards(name);
  const kind = (logarithmic ? ", log axis" : backwards ? ", axis" : "") + (backwards ? " reversed" : "");
  const also = plotBox.clientWidth > 480 ? kind : "";
  return plain(`${metric.label}  (${metric.help}${also})`);
}

// What the mouse shows at a point.
function hoverText(point) {
  const line = lineOf(point);
  const rows = [`<b>${plain(line.label)}</b>`];
  rows.push(...point.dials.map(([name, value]) => `${plain(name)} ${plain(value)}`));
  for (const name of new Set([state.y, state.x])) {
    rows.push(`${plain(metricOf[name].label)} <b>${shortInterval(figureOf(point, name))}</b>`);
  }
  if (point.figures["cost:nfe"] && state.x !== "cost:nfe" && state.y !== "cost:nfe")
    rows.push(`NFE an answer ${shortNumber(point.figures["cost:nfe"][0])}`);
  if (!line.null) rows.push(`${point.sources} sources × ${point.samples} samples${seedWords(point)}`);
  return rows.join("<br>");
}

const seedWords = (point) => (point.parts.length > 1 ? ` × ${point.parts.length} seeds` : "");

function errorBars(points, name, colour) {
  const figures = points.map((point) => figureOf(point, name));
  const reach = (figure, end, sign) => (figure[end] === null ? 0 : Math.max(0, sign * (figure[end] - figure[0])));
  return {
    type: "data",
    symmetric: false,
    array: figures.map((figure) => reach(figure, 2, 1)),
    arrayminus: figures.map((figure) => reach(figure, 1, -1)),
    visible: state.intervals,
    color: colour,
    thickness: 2.2,
    width: 0,
  };
}

// `#0072B2` at a share of its strength, for intervals and strands.
function faint(colour, share) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${parts.join(",")},${share})`;
}

const hoverLabel = (colour) => ({ bordercolor: colour, bgcolor: colourOf("card"), font: { color: colourOf("ink") } });

// Null lines are dashed and dotted in turn, as in frontier.png.
const isDashed = (number) => number % 2 === data.lines.length % 2;

// The traces of one line: its strands as one broken line, its markers with intervals, its single seeds.
function lineTraces(line, number, front) {
  const [xs, ys, at] = [[], [], []];
  for (const [first, behind] of line.strands) {
    for (let n = first; n < behind; n += 1) {
      if (!isDrawn(data.points[n])) continue;
      xs.push(figureOf(data.points[n], state.x)[0]);
      ys.push(figureOf(data.points[n], state.y)[0]);
      at.push(n);
    }
    xs.push(null);
    ys.push(null);
    at.push(null);
  }
  const colour = lineColour(line);
  const common = { type: "scatter", x: xs, y: ys, showlegend: false };
  if (line.null) {
    const hovertext = at.map((n) => (n === null ? "" : hoverText(data.points[n])));
    const dashes = { color: colour, width: 1.4, dash: isDashed(number) ? "dash" : "dot" };
    return [{ ...common, mode: "lines", line: dashes, hovertext, hoverinfo: "text", hoverlabel: hoverLabel(colour) }];
  }
  const numbers = at.filter((n) => n !== null);
  const points = numbers.map((n) => data.points[n]);
  const many = line.strands.length > 1;
  const strands = {
    ...common,
    mode: "lines",
    line: { color: faint(colour, 0.5), width: many ? 1 : 1.6 },
    hoverinfo: "skip",
  };
  const markers = {
    type: "scatter",
    mode: "markers",
    x: points.map((point) => figureOf(point, state.x)[0]),
    y: points.map((point) => figureOf(point, state.y)[0]),
    customdata: numbers,
    hovertext: points.map(hoverText),
    hoverinfo: "text",
    hoverlabel: hoverLabel(colour),
    showlegend: false,
    error_x: errorBars(points, state.x, faint(colour, 0.28)),
    error_y: errorBars(points, state.y, faint(colour, 0.28)),
    marker: {
      color: colour,
      symbol: line.symbol,
      size: numbers.map((n) => (front.has(n) ? 12 : 9)),
      opacity: 1,
      line: {
        color: numbers.map((n) => (front.has(n) ? colourOf("ink") : colourOf("card"))),
        width: numbers.map((n) => (front.has(n) ? 1.8 : 1)),
      },
    },
  };
  return [strands, ...seedTrace(points, colour), markers];
}

// Small dots where the single seeds lie that a point is the mean of.
function seedTrace(points, colour) {
  const dots = points
    .filter((point) => point.parts.length > 1)
    .flatMap((point) => point.parts.map((part) => [part.figures[state.x], part.figures[state.y]]))
    .filter(([x, y]) => x !== undefined && y !== undefined);
  if (dots.length === 0) return [];
  const [x, y] = [dots.map((dot) => dot[0]), dots.map((dot) => dot[1])];
  return [
    {
      type: "scatter",
      mode: "markers",
      x,
      y,
      marker: { size: 4, color: faint(colour, 0.45) },
      hoverinfo: "skip",
      showlegend: false,
    },
  ];
}

function frontTrace(front) {
  const [x, y] = staircase(front);
  const line = { color: colourOf("ink"), width: 1.2 };
  return { type: "scatter", mode: "lines", x, y, line, opacity: 0.65, hoverinfo: "skip", showlegend: false };
}

// A ring around the chosen point.
function ringTrace() {
  const point = data.points[state.chosen];
  const marker = { symbol: "circle-open", size: 22, color: colourOf("accent"), line: { width: 3 } };
  return {
    type: "scatter",
    mode: "markers",
    x: [figureOf(point, state.x)[0]],
    y: [figureOf(point, state.y)[0]],
    marker,
    hoverinfo: "skip",
    showlegend: false,
  };
}

// From the lowest to the highest end of what is drawn, null lines apart, with a little air; of a logarithmic axis the
// logarithms to base 10.
function axisRange(name, numbers, logarithmic) {
  const reach = reachOf(name, numbers);
  if (reach === null) return undefined;
  const [low, high] = logarithmic ? reach.map(Math.log10) : reach;
  const air = 0.07 * (high - low) || Math.abs(low) * 0.1 || 1;
  return runsBackwards(name) ? [high + air, low - air] : [low - air, high + air];
}

function axisLayout(name, numbers) {
  const logarithmic = isLogarithmic(name, numbers);
  return {
    title: { text: axisTitle(name, logarithmic), standoff: 8 },
    type: logarithmic ? "log" : "linear",
    ...(logarithmic ? { dtick: "D2", tickformat: ",.4~r" } : {}),
    range: axisRange(name, numbers, logarithmic),
    gridcolor: colourOf("grid"),
    linecolor: colourOf("quiet"),
    tickcolor: colourOf("quiet"),
    ticks: "outside",
    ticklen: 4,
    showline: true,
    zeroline: false,
    automargin: true,
  };
}

// An arrow into the corner that is better; none where an axis has no better end.
function betterArrow() {
  if (signOf(state.x) === 0 || signOf(state.y) === 0) return [];
  const corner = (name) => (signOf(name) > 0 || runsBackwards(name) ? [0.985, 0.94] : [0.015, 0.06]);
  const [[x, fromX], [y, fromY]] = [corner(state.x), corner(state.y)];
  const common = { xref: "paper", yref: "paper", axref: "pixel", ayref: "pixel" };
  const tail = { ax: fromX < x ? -30 : 30, ay: fromY < y ? 30 : -30 };
  const text = { text: "better", font: { size: 12, color: colourOf("quiet") } };
  return [
    {
      ...common,
      x,
      y,
      ...tail,
      ...text,
      showarrow: true,
      arrowhead: 2,
      arrowwidth: 1.2,
      arrowcolor: colourOf("quiet"),
    },
  ];
}

function layout(numbers) {
  return {
    font: { family: colourOf("font"), size: 13, color: colourOf("ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 62, r: 14, t: 34, b: 56 },
    hovermode: "closest",
    hoverdistance: 14,
    dragmode: "zoom",
    xaxis: axisLayout(state.x, numbers),
    yaxis: axisLayout(state.y, numbers),
    annotations: betterArrow(),
    hoverlabel: { align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colourOf("quiet"), activecolor: colourOf("ink") },
  };
}

const plotSettings = {
  responsive: true,
  displaylogo: false,
  modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  toImageButtonOptions: { format: "png", scale: 2, filename: `${data.name}-frontier` },
};

let isListening = false;

function drawPlot() {
  const numbers = drawnPoints();
  const front = state.front ? paretoFront(numbers) : new Set();
  const order = data.lines.map((line, number) => [line, number]).sort((a, b) => Number(b[0].null) - Number(a[0].null));
  const traces = order.filter(([line, n]) => isShown(line, n)).flatMap(([line, n]) => lineTraces(line, n, front));
  if (front.size > 0) traces.unshift(frontTrace(front));
  if (state.chosen !== null && isDrawn(data.points[state.chosen])) traces.push(ringTrace());
  Plotly.react(plotBox, traces, layout(numbers), plotSettings);
  if (!isListening) {
    isListening = true;
    plotBox.on("plotly_click", (event) => {
      const at = event.points.map((hit) => hit.customdata).find((n) => typeof n === "number");
      if (at !== undefined) change({ chosen: at });
    });
  }
  const missing = data.points.filter((point) => isPointShown(point) && !lineOf(point).null && !isDrawn(point)).length;
  byId("plot-note").textContent = missing
    ? `${missing} of the points shown have no ${figureOfBoth()} and are not drawn.`
    : "";
}

const figureOfBoth = () => `${metricOf[state.x].label} or no ${metricOf[state.y].label}`;

// --- the keyboard -------------------------------------------------------------------------------------------------

// The next point along the line that the chosen one is on.
function alongLine(by) {
  const numbers = drawnPoints();
  if (numbers.length === 0) return null;
  const at = numbers.indexOf(state.chosen);
  if (at < 0) return numbers[by > 0 ? 0 : numbers.length - 1];
  return numbers[(at + by + numbers.length) % numbers.length];
}

// The nearest point of the next line, or of the one before, measured on the axes as they are drawn.
function acrossLines(by) {
  const numbers = drawnPoints();
  if (state.chosen === null || !numbers.includes(state.chosen)) return alongLine(by);
  const lines = [...new Set(numbers.map((n) => data.points[n].line))];
  const here = data.points[state.chosen];
  const line = lines[(lines.indexOf(here.line) + by + lines.length) % lines.length];
  const axis = (name) => {
    const scale = isLogarithmic(name, numbers) ? Math.log : Number;
    const place = (point) => scale(figureOf(point, name)[0]);
    const places = numbers.map((n) => place(data.points[n]));
    const span = Math.max(...places) - Math.min(...places) || 1;
    return (point) => (place(point) - place(here)) / span;
  };
  const [across, up] = [axis(state.x), axis(state.y)];
  const distance = (n) => across(data.points[n]) ** 2 + up(data.points[n]) ** 2;
  const there = numbers.filter((n) => data.points[n].line === line);
  return there.reduce((best, n) => (distance(n) < distance(best) ? n : best));
}

plotBox.addEventListener("keydown", (event) => {
  const numbers = drawnPoints();
  const moves = {
    ArrowRight: () => alongLine(1),
    ArrowLeft: () => alongLine(-1),
    ArrowDown: () => acrossLines(1),
    ArrowUp: () => acrossLines(-1),
    Home: () => numbers[0] ?? null,
    End: () => numbers.at(-1) ?? null,
  };
  if (event.key === "Enter" && state.chosen !== null) byId("point").focus();
  if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  change({ chosen: moves[event.key]() });
});

watch((changed) => {
  drawPlot();
  if (changed.has("chosen") && state.chosen !== null) {
    const point = data.points[state.chosen];
    const figures = [state.y, state.x].filter((name) => figureOf(point, name));
    const said = figures.map((name) => `${metricOf[name].label} ${shortInterval(figureOf(point, name))}`);
    const dials = point.dials.map(([name, value]) => `${name} ${value}`);
    byId("said").textContent = [lineOf(point).label, ...dials, ...said].join(", ");
  }
});
