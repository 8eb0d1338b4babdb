/* One run in a dialog: its command, curves, artifacts, fibers, tensor and config.

The data of a run (`details` of the page's data, inflated when the run is opened)
  config     {key: value}, all keys                     command  what makes this run again
  curves     step -> [step], metric -> [value]          survival {threshold, count}
  vocabulary the names of tokens, or null where tokens are numbers
  artifacts  {tokens, probability, label, seen, right, right_count, kept}, the most confident first; right: some of the
             true last tokens, right_count: how many there are; kept: how many artifacts the run keeps by name
  fibers     {whole, vocab_size, order, contexts, tokens, count, probability} or null; per context some tokens with the
             data's count and the model's probability; whole: every context is there
Each part of the dialog is {element, draw?}, or null where there is nothing: `draw` draws its charts once it stands in
the document, and again in other colours. */

const LARGEST_TENSOR = 40; // tokens; more are a cloud
const MOST_BARS = 15; // tokens of a fiber
const MOST_RIGHT = 4; // right last tokens of an artifact; a closed world may have a hundred
const LEAST = ".01"; // the least probability that a fiber keeps, in words

const chunks = new Map(); // details that were inflated
let drawRun; // draws the charts of the open run
let opener; // what had the focus before

// ---------------------------------------------------------------------------------------------------------- the dialog

/** One run in full, or null where the report has no details of it. */
async function detailOf(run) {
  const at = data.details.of[run];
  if (!at) return null;
  const [chunk, place] = at;
  if (!chunks.has(chunk)) chunks.set(chunk, inflate(data.details.chunks[chunk]));
  return (await chunks.get(chunk))[place];
}

/** A run's name in the address. */
function runKey(run) {
  const sweep = cellOf("sweep", run);
  return sweep === null ? String(cellOf("run_id", run)) : `${sweep}/${cellOf("run_id", run)}`;
}

function openNamed(name) {
  const run = column("run_id").findIndex((_, row) => name === runKey(row));
  if (run >= 0) openRun(run);
}

async function openRun(run) {
  opener = document.activeElement;
  $("run-title").textContent = `Run ${runName(run)}`;
  $("run-body").replaceChildren(h("p", { role: "status" }, "The run is being unpacked …"));
  $("run").showModal();
  $("run-title").focus();
  $("run").scrollTop = 0;
  view.run = runKey(run);
  saveView();
  const detail = await detailOf(run);
  if (!$("run").open || view.run !== runKey(run)) return; // closed while it was unpacked
  const inFull = [commandOf, runCurves, runSurvival, artifactsOf, fibersOf, tensorOf, configOf];
  const parts = [aboutRun(run, detail), ...(detail ? inFull.map((part) => part(detail, run)) : [])].filter(Boolean);
  $("run-body").replaceChildren(...parts.map((part) => part.element));
  drawRun = () => parts.forEach((part) => part.draw?.());
  drawRun();
}

function closeRun() {
  for (const chart of $("run").querySelectorAll(".js-plotly-plot")) Plotly.purge(chart);
  $("run-body").replaceChildren();
  [view.run, drawRun] = [null, null];
  saveView();
  if (opener?.isConnected) opener.focus();
}

function section(title, ...children) {
  return h("section", { class: "panel" }, h("h3", title), ...children);
}

/** The place of a chart and of the table of its numbers. */
function chartPlace(id, label, size = "short") {
  return [
    h("figure", { id, class: `chart ${size}`, "aria-label": label }),
    h("p", { class: "empty", id: `${id}-empty`, hidden: true }),
    h("details", { class: "numbers", id: `${id}-numbers` }, h("summary", "The numbers drawn")),
  ];
}

// ---------------------------------------------------------------------------------------------------------- what it is

function aboutRun(run, detail) {
  const [sweep, reason, group] = [cellOf("sweep", run), cellOf("reason", run), groupOf[run]];
  const words = [
    sweep !== null && axisIndex("sweep") < 0 && `sweep ${visible(sweep)}`,
    visible(cellOf("state", run)),
    `step ${spell(cellOf("step", run))}`,
    group && data.axes.length > 0 && describe(group),
  ];
  const missing = `This report has no details of this run. ${data.left_out ? visible(data.left_out) : ""}`;
  return {
    element: h(
      "div",
      h("p", words.filter(Boolean).join(" · ")),
      reason && h("p", { class: "note" }, visible(reason)),
      !detail && h("p", { class: "empty" }, missing),
    ),
  };
}

function commandOf({ command }) {
  if (!command) return null;
  const said = h("span", { role: "status", class: "quiet" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(command);
      said.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren($("run-command"));
      said.textContent = "Selected: copy it with the keyboard.";
    }
  };
  const text = h("pre", { id: "run-command", tabindex: 0 }, visible(command));
  const button = h("button", { type: "button", id: "copy", click: copy }, "Copy");
  return { element: section("Made by", h("div", { class: "command" }, text, button, said)) };
}

function configOf({ config }) {
  const spelled = (value) => visible(value !== null && typeof value === "object" ? JSON.stringify(value) : value);
  const rows = Object.entries(config).map(([key, value]) =>
    h("tr", h("th", { scope: "row" }, visible(key)), h("td", spelled(value))),
  );
  return { element: section("Config", scroller("Config", h("table", { id: "run-config" }, h("tbody", rows)))) };
}

// -------------------------------------------------------------------------------------------------------------- curves

/** A line through the values of one run. */
function runTrace(x, y, colour, said) {
  return {
    type: "scatter",
    mode: "lines+markers",
    x,
    y,
    line: { color: colour, width: 2 },
    marker: { size: 5, color: colour },
    hoverinfo: "text",
    hovertext: y.map((value, place) => said(x[place], value, place)),
  };
}

function runCurves({ curves = {} }) {
  const names = Object.keys(curves).filter((name) => name !== "step" && curves[name].some((value) => value !== null));
  if (!names.length) return null;
  const select = h("select", { id: "run-y", change: drawIt });
  const log = h("input", { type: "checkbox", id: "run-log", change: drawIt });
  const options = names.map((name) => [name, name]);
  fill(select, options, names.includes(view.y) ? view.y : names[0]);
  function drawIt() {
    const name = select.value;
    const said = (x, y) => `${plain(name)} ${spell(y)}<br>at step ${spell(x)}`;
    const trace = runTrace(curves.step, curves[name], metricColour(name, theme()), said);
    const axes = { xaxis: scale("training step", false), yaxis: scale(name, log.checked, metric(name).share) };
    draw("run-chart", [trace], axes);
    const rows = curves.step.map((step, place) => [step, curves[name][place]]);
    setNumbers("run-chart-numbers", ["step", name], rows);
  }
  const choice = [
    h("label", { class: "inline" }, "Metric ", select),
    h("label", { class: "inline" }, log, "log scale"),
  ];
  return {
    element: section("Curves", h("div", { class: "row" }, choice), chartPlace("run-chart", "A metric over training")),
    draw: drawIt,
  };
}

function runSurvival({ survival }) {
  if (!survival?.threshold?.length) return null;
  const { threshold, count } = survival;
  const said = (_, y, place) => `${counted(y ?? 0, "artifact")}<br>above P = ${spell(threshold[place])}`;
  const drawIt = () => {
    const axes = { xaxis: thresholdScale(threshold), yaxis: scale("artifacts", false) };
    draw("run-survival", [runTrace(threshold.map(logOdds), count, theme().series[0], said)], axes);
    const rows = threshold.map((x, place) => [x, count[place]]);
    setNumbers("run-survival-numbers", ["threshold", "artifacts"], rows);
  };
  const place = chartPlace("run-survival", "Number of artifacts above a threshold");
  return { element: section("Artifacts at every threshold", place), draw: drawIt };
}

// ----------------------------------------------------------------------------------------------------------- artifacts

/** What spells a token: its name, or its number. */
function speller({ vocabulary }) {
  return (token) => visible(vocabulary?.[token] ?? token);
}

/** Tokens as boxes, so that a space in a name is seen to be one. */
function boxes(tokens, spelled) {
  return h("span", tokens.map((token) => [h("span", { class: "token" }, short(spelled(token), 60)), " "]).flat());
}

/** A coloured dot; the word beside it says the same. */
function dot(kind) {
  return h("span", { class: `dot ${kind}`, "aria-hidden": "true" });
}

function artifactsOf(detail, run) {
  const found = detail.artifacts;
  if (!found) return null;
  const all = cellOf("artifacts/count", run);
  const isSample = detail.config["artifacts.keep"] === "sample" && found.kept < all;
  const isEstimate = cellOf("artifacts/count_high", run) > cellOf("artifacts/count_low", run);
  const title = isSample ? "Most confident artifacts of a sample" : "Most confident artifacts";
  const count = found.tokens.length;
  if (!count) {
    const none = all === 0;
    const words = none ? "The model has no artifact." : "The report keeps no artifact of this run by name.";
    return { element: section(title, h("p", { class: "empty" }, words)) };
  }
  const totals = LABELS.map((label) => [found.label.filter((one) => one === label).length, label]);
  const spelled = ([total, label]) => (label === "unlabelled" ? `${total} ${label}` : counted(total, label));
  const kept = listed(totals.filter(([total]) => total).map(spelled));
  const of = isSample ? `of a sample of ${spell(found.kept)} of ${counted(all, "artifact")}` : "that the report keeps";
  const among = isEstimate ? " of those in the contexts that were looked at" : "";
  const words = `The ${counted(count, "most confident artifact")} ${of}${among}: ${kept}. An artifact is an
    n-gram that the model is sure of and that its data do not hold; right are the last tokens that are true there.`;
  const shown = table(["rank", "label", "n-gram", "P", "context", "right"], artifactRows(detail), {
    id: "run-artifacts",
  });
  const save = () => download(`artifacts_${cellOf("run_id", run)}`, ...artifactTable(detail));
  const button = h("button", { type: "button", id: "download-artifacts", click: save }, "Download as CSV");
  return { element: section(title, h("p", words), scroller(title, shown), h("p", button)) };
}

/** The cells of the artifacts as the page shows them. */
function artifactRows(detail) {
  const { tokens, probability, label, seen, right, right_count: rights } = detail.artifacts;
  const spelled = speller(detail);
  return tokens.map((ngram, place) => {
    const answers = right?.[place] ?? [];
    const more = (rights?.[place] ?? answers.length) - MOST_RIGHT;
    return [
      place + 1,
      h("span", dot(LABELS.includes(label[place]) ? label[place] : "unlabelled"), visible(label[place])),
      h("span", { class: "ngram" }, boxes(ngram, spelled)),
      probability[place]?.toFixed(4),
      seen[place] ? "seen" : "unseen",
      h("span", boxes(answers.slice(0, MOST_RIGHT), spelled), more > 0 && `+${more}`),
    ];
  });
}

/** The artifacts as a CSV has them: header and rows. */
function artifactTable(detail) {
  const { tokens, probability, label, seen, right } = detail.artifacts;
  const named = (token) => detail.vocabulary?.[token] ?? token;
  const places = tokens[0].map((_, place) => `token ${place + 1}`);
  const rows = tokens.map((ngram, row) => {
    const answers = (right?.[row] ?? []).map(named).join(" ");
    return [row + 1, ...ngram.map(named), probability[row], label[row], seen[row] ? "seen" : "unseen", answers];
  });
  return [["rank", ...places, "probability", "label", "context", "right"], rows];
}

// -------------------------------------------------------------------------------------------------------------- fibers

/** The fiber explorer: choose a context, see what the model says there beside what the data hold. */
function fibersOf(detail) {
  const { fibers } = detail;
  if (!fibers?.contexts.length) return null;
  const rows = new Map(fibers.contexts.map((context, row) => [context.join(), row]));
  const places = h("div", { class: "places", id: "fiber" });
  const drawIt = () => {
    const chosen = [...places.querySelectorAll("select")].map((select) => select.value).join();
    drawFiber(detail, rows.get(chosen));
  };
  places.append(
    ...contextChoices(detail).map(([label, options, chosen], place) => {
      const select = h("select", { "data-place": place, change: drawIt });
      fill(select, options, chosen);
      return h("label", { class: "place" }, label, select);
    }),
  );
  const kept = counted(fibers.contexts.length, "context");
  const words = `For a context, what the model says comes next beside what the data hold: their fiber, divided by its
    sum. ${fibers.whole ? "" : `The report keeps ${kept} of this run, with some tokens of each.`}`;
  const key = h(
    "ul",
    { class: "legend" },
    h(
      "li",
      [
        ["model", "said by the model"],
        ["fiber", "in the data"],
      ].map(([kind, text]) => h("span", { class: "entry" }, dot(kind), text)),
    ),
  );
  const said = h("p", { id: "fiber-drawn", role: "status" });
  const chart = chartPlace("fiber-chart", "Distribution of the next token");
  return { element: section("Fibers", h("p", words), places, said, key, chart), draw: drawIt };
}

/** What there is to choose, as [label, options, chosen]: a token per place, or one of the contexts that are kept. */
function contextChoices(detail) {
  const { contexts, count, whole } = detail.fibers;
  const spelled = speller(detail);
  const start =
    contexts[
      Math.max(
        0,
        count.findIndex((counts) => counts.some((one) => one > 0)),
      )
    ];
  if (!whole) {
    const options = contexts.map((context) => [context.join(), context.map(spelled).join(" · ")]);
    return [["context", options, start.join()]];
  }
  return start.map((chosen, place) => {
    const tokens = [...new Set(contexts.map((context) => context[place]))].sort((a, b) => a - b);
    const options = tokens.map((token) => [String(token), spelled(token)]);
    return [`token ${place + 1}`, options, String(chosen)];
  });
}

/** The tokens of a fiber, the likeliest first: what the model says and what the data hold. */
function fiberEntries({ tokens, count, probability }, row) {
  const total = count[row].reduce((sum, one) => sum + one, 0);
  const entries = tokens[row].map((token, place) => {
    const times = count[row][place];
    return { token, model: probability[row][place] ?? 0, times, share: total ? times / total : null };
  });
  entries.sort((a, b) => b.model - a.model || b.times - a.times);
  return [entries.slice(0, MOST_BARS), total];
}

function drawFiber(detail, row) {
  const { fibers } = detail;
  const spelled = speller(detail);
  const known = row !== undefined;
  const [entries, total] = known ? fiberEntries(fibers, row) : [[], 0];
  const colours = theme();
  const names = entries.map((entry) => plain(spelled(entry.token), 24));
  const place = entries.map((_, index) => index);
  const bar = (key, words, colour) => ({
    type: "bar",
    orientation: "h",
    y: place,
    x: entries.map((entry) => entry[key]),
    marker: { color: colour },
    hoverinfo: "text",
    hovertext: entries.map((entry, index) => `${names[index]}<br>${spell(entry[key])} ${words}`),
  });
  const bars = [bar("model", "said by the model", colours.accent), bar("share", "of the data", colours.unlabelled)];
  const layout = {
    margin: { l: 20 + 7 * Math.max(0, ...names.map((name) => name.length)), r: 14, t: 20, b: 44 },
    barmode: "group",
    bargap: 0.3,
    xaxis: { title: "P(next token | context)", range: [0, 1.02] },
    yaxis: { title: "", tickvals: place, ticktext: names, range: [Math.max(entries.length, 3) - 0.5, -0.5] },
  };
  draw("fiber-chart", entries.length ? bars.slice(0, total ? 2 : 1) : [], layout, {
    why: known ? `No token here has a probability of ${LEAST} or is in the data.` : "No fiber is kept of this context.",
  });
  $("fiber-drawn").textContent = known ? fiberSentence(fibers.contexts[row], entries[0], total, spelled) : "";
  const rows = entries.map((entry) => [spelled(entry.token), entry.model, entry.share, entry.times]);
  setNumbers("fiber-chart-numbers", ["token", "model", "data", "times in the data"], rows);
}

function fiberSentence(context, first, total, spelled) {
  const choice = first ? `the model's first choice is ${spelled(first.token)}, at ${spell(first.model)}; ` : "";
  const held = total ? `the data hold ${counted(total, "sentence")} with this context.` : "it is not in the data.";
  return `${context.map(spelled).join(" ")} …: ${choice}${held}`;
}

// ---------------------------------------------------------------------------------------------------------- the tensor

/** The completed tensor of a small vocabulary in three dimensions: the paper's Figure 1. */
function tensorOf(detail) {
  const { fibers, config } = detail;
  if (!fibers?.whole || fibers.order !== 3 || fibers.vocab_size > LARGEST_TENSOR) return null;
  const value = Number(config["artifacts.threshold"] ?? 0.5);
  const range = { min: 0.01, max: 0.99, step: 0.01, value };
  const slider = h("input", { type: "range", id: "tensor-threshold", ...range, input: drawIt });
  const said = h("output", { id: "tensor-drawn", for: "tensor-threshold" });
  const entries = tensorEntries(detail);
  function drawIt() {
    drawTensor(detail, entries, Number(slider.value), said);
  }
  const key = [
    ["data", "in the data"],
    ["generalization", "generalization"],
    ["hallucination", "hallucination"],
    ["unlabelled", "artifact unlabelled, or not among the most confident"],
    ["below", "below the threshold"],
  ].map(([kind, words]) => h("span", { class: "entry" }, dot(kind), words));
  const words = `Every n-gram to which the model gives a probability of at least ${LEAST}: the larger, the likelier.
    Drag to turn it.`;
  return {
    element: section(
      "The completed tensor",
      h("p", words),
      h("div", { class: "slider" }, h("label", { for: "tensor-threshold" }, "Threshold"), slider, said),
      h("ul", { class: "legend" }, h("li", key)),
      chartPlace("tensor", "The completed tensor", "tall"),
    ),
    draw: drawIt,
  };
}

/** All entries that are kept of a tensor, the likeliest first: {tokens, count, probability, label}. */
function tensorEntries({ fibers, artifacts }) {
  const labels = new Map(artifacts?.tokens.map((tokens, place) => [tokens.join(), artifacts.label[place]]));
  const entries = fibers.contexts.flatMap((context, row) =>
    fibers.tokens[row].map((token, place) => {
      const tokens = [...context, token];
      const label = labels.get(tokens.join()) ?? "unlabelled";
      return { tokens, label, count: fibers.count[row][place], probability: fibers.probability[row][place] ?? 0 };
    }),
  );
  return entries.sort((a, b) => b.probability - a.probability);
}

/** What an entry is at a threshold: `data`, `below`, or the label of an artifact. */
function kindOf(entry, threshold) {
  if (entry.count > 0) return "data";
  return entry.probability > threshold ? entry.label : "below";
}

function drawTensor(detail, entries, threshold, said) {
  const colours = { ...theme(), below: theme().unlabelled };
  const spelled = speller(detail);
  const byKind = new Map(["below", "data", ...LABELS].map((kind) => [kind, []]));
  for (const entry of entries) byKind.get(kindOf(entry, threshold)).push(entry);
  const total = (kinds) => kinds.reduce((sum, kind) => sum + byKind.get(kind).length, 0);
  said.textContent = `${threshold.toFixed(2)}: ${counted(total(LABELS), "artifact")} above it,
    ${counted(total(["data"]), "n-gram")} of the data`;
  const traces = [...byKind]
    .filter(([, part]) => part.length)
    .map(([kind, part]) => tensorTrace(kind, part, colours[kind], spelled));
  const size = detail.fibers.vocab_size;
  const far = $("tensor").clientWidth < 500 ? 1.8 : 1.6; // from where the whole cube is seen
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 },
    dragmode: "orbit",
    uirevision: "turned", // turned by hand, it stays so
    scene: {
      xaxis: tensorAxis("first token", size, spelled, colours),
      yaxis: tensorAxis("second token", size, spelled, colours),
      zaxis: tensorAxis("third token", size, spelled, colours),
      aspectmode: "cube",
      camera: { eye: { x: far, y: -far, z: 0.56 * far }, center: { x: 0, y: 0, z: -0.15 } },
    },
  };
  const why = "This browser has no WebGL, which the picture needs; the fibers above have the same numbers.";
  draw("tensor", hasWebGL() ? traces : [], layout, { why });
  const rows = entries.map((entry) => {
    const words = entry.tokens.map(spelled).join(" ");
    return [words, entry.probability, entry.count, kindOf(entry, threshold)];
  });
  setNumbers("tensor-numbers", ["n-gram", "P", "times in the data", "what it is"], rows);
}

function hasWebGL() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") ?? canvas.getContext("webgl"));
}

function tensorAxis(title, size, spelled, colours) {
  const every = Math.ceil(size / 12);
  const ticks = [...Array(size).keys()].filter((token) => token % every === 0);
  return {
    title: { text: title },
    tickvals: ticks,
    ticktext: ticks.map((token) => short(spelled(token), 10).replaceAll("<", "‹")), // drawn without entities
    tickfont: { size: 10 },
    range: [-0.5, size - 0.5],
    gridcolor: colours.rule,
    color: colours.ink,
    showbackground: false,
    zeroline: false,
  };
}

function tensorTrace(kind, entries, colour, spelled) {
  const said = ({ tokens, probability, count }) => {
    const words = tokens.map((token) => plain(spelled(token), 24)).join(" ");
    const label = LABELS.includes(kind) ? `<br>${kind}` : "";
    return `${words}<br>P ${spell(probability)}, ${counted(count, "time")} in the data${label}`;
  };
  return {
    type: "scatter3d",
    mode: "markers",
    x: entries.map(({ tokens }) => tokens[0]),
    y: entries.map(({ tokens }) => tokens[1]),
    z: entries.map(({ tokens }) => tokens[2]),
    marker: {
      symbol: kind === "data" ? "diamond" : "circle",
      size: entries.map(({ probability }) => 3 + 9 * probability),
      color: entries.map(({ probability }) => faded(colour, kind === "below" ? 0.35 : 0.6 + 0.4 * probability)),
      line: { width: 0 },
    },
    hoverinfo: "text",
    hovertext: entries.map(said),
  };
}
