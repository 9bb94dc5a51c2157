// The chosen point: its figures, and behind tabs its samples, its traces, its configuration and record.

const pointView = { tab: "samples", seed: 0, more: false };

// The two figures on the axes, and all others behind a summary.
function figureList(point) {
  const list = (names) =>
    el(
      "dl",
      { class: "figures" },
      names
        .filter((name) => figureOf(point, name) !== null)
        .map((name) =>
          el(
            "div",
            { title: metricOf[name].signature || null },
            el("dt", {}, metricOf[name].label),
            el("dd", {}, shortInterval(figureOf(point, name))),
          ),
        ),
    );
  const axes = [state.y, state.x];
  const others = data.metrics.map((metric) => metric.name).filter((name) => !axes.includes(name));
  const more = el("details", { open: pointView.more }, el("summary", { class: "quiet" }, "all figures"), list(others));
  more.addEventListener("toggle", () => {
    pointView.more = more.open;
  });
  return [list(axes), more];
}

function recordPanel(part) {
  const { config, run } = readBlock(`part-${part.key}`);
  const versions = run.versions ?? {};
  const rows = [
    ["folder", part.folder],
    ["finished", run.finished],
    ["device", run.device],
    ["seconds", run.seconds === undefined ? undefined : run.seconds.toFixed(1)],
    ["checkpoint", run.checkpoint],
    ...Object.entries(versions),
  ].filter(([, value]) => value !== undefined && value !== "");
  return [
    el(
      "dl",
      { class: "record" },
      rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))),
    ),
    foldedText("config.yaml", config, true),
    foldedText("run.json", JSON.stringify(run, null, 1), false),
  ];
}

function foldedText(name, text, open) {
  const copy = button("copy", {}, (event) => {
    event.preventDefault();
    copyText(text, event.currentTarget);
  });
  return el("details", { open }, el("summary", {}, name, " ", copy), el("pre", { tabindex: "0" }, text));
}

const PANELS = {
  samples: ["Samples", samplesPanel],
  trace: ["Denoising", tracePanel],
  record: ["Configuration", recordPanel],
};

function tabs(part) {
  const names = Object.keys(PANELS).filter(
    (name) => name !== "trace" || readBlock(`part-${part.key}`).traces.length > 0,
  );
  if (!names.includes(pointView.tab)) pointView.tab = "samples";
  const panel = el("div", { id: "panel", role: "tabpanel", "aria-labelledby": `tab-${pointView.tab}` });
  const choose = (name) => {
    pointView.tab = name;
    drawPoint();
    byId(`tab-${name}`).focus();
  };
  const list = names.map((name) =>
    button(
      PANELS[name][0],
      {
        role: "tab",
        id: `tab-${name}`,
        "aria-selected": String(name === pointView.tab),
        tabindex: name === pointView.tab ? "0" : "-1",
      },
      () => choose(name),
    ),
  );
  const keys = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.stopPropagation();
    choose(names[(names.indexOf(pointView.tab) + step + names.length) % names.length]);
  };
  panel.append(
    ...PANELS[pointView.tab]
      [1](part)
      .flat()
      .filter((child) => child !== null),
  );
  return [el("div", { role: "tablist", class: "tabs", onkeydown: keys }, list), panel];
}

// Which of several seeds is looked at.
function seedChoice(point) {
  if (point.parts.length < 2) return null;
  const select = el(
    "select",
    { id: "seed", "aria-label": "Seed" },
    point.parts.map((part, n) => el("option", { value: n }, `seed ${part.seed}`)),
  );
  select.value = pointView.seed;
  select.addEventListener("change", () => {
    pointView.seed = Number(select.value);
    drawPoint();
    byId("seed").focus();
  });
  return select;
}

function drawPoint() {
  stopPlaying();
  player.show = null;
  const box = byId("point");
  if (state.chosen === null) {
    box.replaceChildren(
      el(
        "div",
        { class: "empty" },
        el("p", {}, "Choose a point to read its samples."),
        el("p", { class: "quiet" }, "Click one in the plot or the table, or go to the plot and press an arrow key."),
      ),
    );
    return;
  }
  const point = data.points[state.chosen];
  pointView.seed = Math.min(pointView.seed, Math.max(0, point.parts.length - 1));
  const part = point.parts[pointView.seed];
  const title = el(
    "h2",
    {},
    markerIcon(lineOf(point)),
    lineOf(point).label,
    el("span", { class: "dials" }, ` ${dialWords(point)}`),
  );
  const close = button("✕", { "aria-label": "Let go of this point", class: "close" }, () => change({ chosen: null }));
  box.replaceChildren(
    el("div", { class: "head" }, title, seedChoice(point) ?? "", close),
    ...figureList(point),
    ...(part ? tabs(part) : []),
  );
}

watch((changed) => {
  if (changed.has("chosen")) {
    pointView.seed = 0;
    sampleView.page = 0;
  }
  if (["chosen", "x", "y", "theme"].some((name) => changed.has(name))) drawPoint();
});
