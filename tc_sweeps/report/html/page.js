/* The report's page: reads the data that stand in it, and draws them.

tools.js, charts.js, view.js, run.js and this file are joined in this order into one script of the page.
From data to picture: `view` (what the reader chose, kept in the address) -> `shownGroups` -> `linesOf` -> traces, and
the same lines as a table and as CSV. A group is never joined with another: each has a mean of its own.
What a user typed (names, tokens, reasons) reaches the document by textContent alone, and plotly by `plain`.

Handles for tests, all stable ids: #y #x #colour #dash #log-x #log-y choose the view; fieldset[data-axis=KEY] holds the
checkboxes (input[data-value=INDEX], button[data-all], button[data-none]) of a filter; #reset #count #legend #drawn.
#chart #tradeoff #survival are plotly charts, #chart-numbers ... their tables, #download-curves ... their CSV.
#group lists the runs of a clicked point. #runs is the table: th[data-column=NAME] button sorts, tr[data-run=ROW] opens;
#columns #column-choices #pager #previous #next #download-table. dialog#run: #run-title #run-command #copy #run-y
#run-chart #run-survival #run-artifacts #download-artifacts #fiber [data-place=N] #fiber-chart #fiber-drawn #tensor
#tensor-threshold #tensor-drawn #run-config #run-close.
body[data-state] is `unpacking`, `ready` or `failed`. */

const MOST_LINES = 200; // more cannot be told apart, and take seconds to draw
const MOST_BANDS = 40; // above this many lines intervals cover each other
const MOST_ENTRIES = 14; // of an axis in the legend
const PAGE = 50; // rows of the table at a time
const INTERVAL = "mean over seeds with its 95 % Student t interval";

// -------------------------------------------------------------------------------------------------------------- curves

/** The x axis of the curves. */
function xScale() {
  const log = view.log.has("x");
  if (view.x === "step") return { ...scale("training step", log) };
  const axis = data.axes[axisIndex(view.x)];
  if (!axis) return { ...scale(view.x, log), rangemode: "normal" };
  if (!axis.numeric) {
    return {
      title: axisName(axis),
      tickvals: axis.values.map((_, place) => place),
      ticktext: axis.values.map((value) => plain(spellValue(value), 20)),
      range: [-0.4, axis.values.length - 0.6],
    };
  }
  // Ticks where values were tried, as far as they can be read.
  return {
    ...scale(axisName(axis), log),
    rangemode: "normal",
    ...(axis.values.length <= 8 ? { tickvals: axis.values, ticktext: axis.values.map(spell) } : {}),
  };
}

/** What hovering says of a point: its group, the runs behind it, and the numbers. */
function hover(group, ...said) {
  const named = group.runs.slice(0, 4).map((run) => plain(runName(run)));
  const more = group.runs.length > 4 ? [`and ${group.runs.length - 4} more`] : [];
  return [
    ...said,
    ...valuesOf(group).map((text) => plain(text, 46)),
    "",
    `${counted(group.runs.length, "run")}:`,
    ...named,
    ...more,
  ].join("<br>");
}

/** `12.3 [11.8, 12.8]`. */
function withInterval({ mean, low, high }) {
  return low === null || low === undefined ? spell(mean) : `${spell(mean)} [${spell(low)}, ${spell(high)}]`;
}

function drawCurves(groups) {
  const colours = theme();
  const all = linesOf(groups);
  const lines = spread(all, MOST_LINES);
  const style = stylist(colours, metricColour(view.y, colours));
  const stepwise = view.x === "step";
  const banded = stepwise && lines.length <= MOST_BANDS;
  const log = view.log.has("y");
  const bands = banded
    ? lines.map(({ group, points }) => band(wholeOf(points), style(group).colour, lines.length, log))
    : [];
  const ceilings = ceilingTraces(lines, style);
  const faint = stepwise ? lines.filter(({ points }) => hasFewer(points)) : [];
  const curves = [
    ...faint.map((line) => faintTrace(line, style(line.group))),
    ...lines.map((line) => curveTrace(line, style(line.group), stepwise, lines.length)),
  ];
  const axes = { xaxis: xScale(), yaxis: scale(view.y, log, metric(view.y).share) };
  const why = whyEmpty(groups, !stepwise, stepwise ? view.y : `both ${view.y} and ${view.x}`);
  const click = (group) => listRuns(data.groups[group]);
  draw("chart", [...bands, ...ceilings, ...curves], axes, { why, click });
  $("drawn").replaceChildren(...drawnSentence(groups, all, lines, banded));
  drawLegend(groups, style, { ceiling: ceilings.length > 0, faint: faint.length > 0 });
  const [header, rows] = [curveHeader(), curveRows(all)];
  setNumbers("chart-numbers", header, rows);
  $("download-curves").onclick = () => download("curves", header, rows);
}

/** Whether some points of a curve are of fewer runs than others: of those that have come so far, or are defined there. */
function hasFewer(points) {
  return points.some((point) => point.n && point.n < most(points));
}

/** The runs behind the points of a curve that has the most. */
function most(points) {
  return extent(points.map((point) => point.n))[1];
}

/** A curve without the points of fewer runs: a mean of other runs may leap. */
function wholeOf(points) {
  const runs = most(points);
  return points.map((point) => (point.n === runs ? point : { ...point, mean: null, low: null, high: null }));
}

/** What every line of the curves has. */
function lineTrace(points, stepwise) {
  return {
    type: "scatter",
    x: points.map((point) => point.x),
    y: points.map((point) => point.mean),
    customdata: points.map((point) => point.group.index),
    hoverinfo: "text",
    hovertext: points.map((point) =>
      hover(
        point.group,
        `<b>${plain(view.y)} ${withInterval(point)}</b>`,
        `at ${stepwise ? "step" : plain(view.x)} ${plain(xText(point))}, ${counted(point.n, "run")}`,
      ),
    ),
  };
}

/** The whole of a curve, under the part of which all its runs are. */
function faintTrace({ points }, { colour, dash }) {
  return { ...lineTrace(points, true), mode: "lines", line: { color: faded(colour, 0.55), dash, width: 1 } };
}

function curveTrace({ points }, { colour, dash, symbol }, stepwise, count) {
  return {
    ...lineTrace(stepwise ? wholeOf(points) : points, stepwise),
    mode: stepwise && (count > MOST_BANDS || points.length > 60) ? "lines" : "lines+markers",
    line: { color: colour, dash, width: count > MOST_BANDS ? 1.2 : 2 },
    marker: { color: colour, symbol: stepwise ? "circle" : symbol, size: stepwise ? 4 : 8 },
    ...(stepwise ? {} : { error_y: bars(points, colour, ["mean", "low", "high"]) }),
  };
}

/** The x of a point in words. */
function xText(point) {
  const place = axisIndex(view.x);
  return place < 0 ? spell(point.x) : spellValue(valueOn(place, point.group));
}

/** The ceilings of the lines, each drawn once where several lines of a colour have the same. */
function ceilingTraces(lines, style) {
  const drawn = new Map();
  for (const { group, points } of lines) {
    if (points.every((point) => point.ceiling === null)) continue;
    const { colour } = style(group);
    const [x, y] = [points.map((point) => point.x), points.map((point) => point.ceiling)];
    drawn.set([colour, ...x, ...y].join(), {
      type: "scatter",
      mode: points.length > 1 ? "lines" : "markers",
      x,
      y,
      line: { color: faded(colour, 0.8), dash: CEILING, width: 1 },
      marker: { symbol: "line-ew-open", size: 16, color: colour },
      hoverinfo: "text",
      hovertext: points.map((point) => hover(point.group, `<b>ceiling ${spell(point.ceiling)}</b>`)),
    });
  }
  return [...drawn.values()];
}

/** Why a chart has nothing to draw; `ends`: it draws finished runs alone, `what`: what it draws of a run. */
function whyEmpty(groups, ends, what) {
  if (!groups.length) return "The filters leave no run.";
  const runs = groups.flatMap((group) => group.runs);
  if (!drawnRuns(groups, ends).length) {
    return `No run shown has ${ends ? "finished" : "been evaluated"}: ${inStates(runs)}.`;
  }
  return `No run shown${ends ? " that has finished" : ""} has ${visible(what)}.`;
}

/** The sentences above the curves: what is drawn, and what is left out. */
function drawnSentence(groups, all, lines, banded) {
  const stepwise = view.x === "step";
  const { about } = metric(view.y);
  const what = [
    h("strong", visible(view.y)),
    about ? ` (${visible(about)})` : "",
    ` against ${stepwise ? "the training step" : visible(view.x)}.`,
  ];
  if (!lines.length) return what;
  const points = lines.flatMap((line) => line.points).filter((point) => point.mean !== null);
  const [few, many] = extent(points.map((point) => point.n));
  const each = few === many ? counted(few, "run") : `${few} to ${many} runs`;
  const said = [` Each point is the ${INTERVAL}; ${each} a point.`];
  if (many === 1) said[0] = " Each point is one run, hence without an interval.";
  said.push(unfinished(groups, !stepwise));
  const groupsDrawn = new Set(all.flatMap((line) => line.points).map((point) => point.group));
  const without = drawnRuns(groups.filter((group) => !groupsDrawn.has(group)), !stepwise);
  if (without.length) {
    const what = stepwise ? visible(view.y) : `${visible(view.y)} or no ${visible(view.x)}`;
    said.push(` ${counted(without.length, "run")} with no ${what}: not drawn.`);
  }
  const { run, colour, dash } = styled();
  const differs = (place) => new Set(lines.map(({ group }) => group.values[place])).size > 1;
  const same = data.axes.filter((_, place) => ![run, colour, dash].includes(place) && differs(place));
  if (same.length && colour !== EACH) {
    said.push(` Lines of one colour and dash differ in ${listed(same.map(axisName))}.`);
  }
  if (all.length > lines.length)
    said.push(
      ` Of ${spell(all.length)} lines ${lines.length} are drawn, spread evenly: filter to see others; the CSV has all.`,
    );
  if (stepwise && !banded) said.push(` Intervals are left out above ${MOST_BANDS} lines; hovering tells them.`);
  return [...what, ...said];
}

/** A key for colour, dash and ceiling: a page's own, since one entry per line would not fit where there are many. */
function drawLegend(groups, style, { ceiling, faint }) {
  const { run, colour, dash } = styled();
  const { ink, quiet } = theme();
  const [one] = groups.map((group) => style(group).colour);
  const hue = colour === -1 ? one : ink;
  const entry = (look, words) => h("span", { class: "entry" }, swatch(...look), words);
  const byAxis = (place, look) =>
    axisEntries(groups, place).map((group) => {
      const value = valueOn(place, group);
      return entry(look(group), value === undefined ? "without" : short(spellValue(value)));
    });
  const item = (title, entries) => h("li", title && h("b", title), entries);
  const items = colour === EACH ? legendOfLines(groups, run, style, entry, item) : [];
  if (colour >= 0)
    items.push(item(axisName(data.axes[colour]), byAxis(colour, (group) => [style(group).colour, "solid"])));
  if (dash >= 0 && colour !== EACH)
    items.push(item(axisName(data.axes[dash]), byAxis(dash, (group) => [ink, style(group).dash])));
  const notes = [];
  if (ceiling) notes.push(entry([hue, CEILING, 1], "ceiling, the most artifacts that any model can have"));
  if (faint) notes.push(entry([quiet, "solid", 1], "faint: of fewer runs than the rest of the line"));
  if (notes.length) items.push(item(null, notes));
  $("legend").replaceChildren(...items);
}

/** A group for each value of an axis among some groups, as many as a legend has room for; those without a value last. */
function axisEntries(groups, place) {
  const found = new Map(groups.map((group) => [group.values[place] ?? Infinity, group]));
  return thinned([...found.keys()].sort((a, b) => a - b)).map((value) => found.get(value));
}

/** At most about `MOST_ENTRIES` of a list, the first and the last among them. */
function thinned(list) {
  const every = Math.ceil(list.length / MOST_ENTRIES);
  return list.filter((_, order) => order % every === 0 || order === list.length - 1);
}

/** An entry for each line, those of a sweep together under its name: in what it differs from the others there. */
function legendOfLines(groups, run, style, entry, item) {
  const sweep = axisIndex("sweep");
  const lines = [...new Map(groups.map((group) => [lineOf(group, run), group])).values()];
  const names = [...new Set(lines.map((group) => group.values[sweep]))];
  return names.map((name) => {
    const places = axesWithin(name).filter((place) => place !== run);
    const own = thinned(lines.filter((group) => group.values[sweep] === name));
    const entries = own.map((group) => entry([style(group).colour, style(group).dash], valuesOf(group, places).join(", ")));
    return item(name === undefined ? null : short(spellValue(data.axes[sweep].values[name])), entries);
  });
}

function axisCells(group) {
  return data.axes.map((_, place) => valueOn(place, group));
}

/** Whether the CSV has a column for x, which is none of the axes. */
function hasOwnX() {
  return axisIndex(view.x) < 0;
}

function curveHeader() {
  return [...data.axes.map((axis) => axis.key), ...(hasOwnX() ? [view.x] : []), view.y, "low", "high", "runs", "ceiling"];
}

function curveRows(lines) {
  return lines
    .flatMap((line) => line.points)
    .filter((point) => point.mean !== null)
    .map(({ group, x, mean, low, high, n, ceiling }) => {
      return [...axisCells(group), ...(hasOwnX() ? [x] : []), mean, low, high, n, ceiling];
    });
}

// ----------------------------------------------------------------------------------------------------- two more charts

/** What both panels share: lines of groups in the colours of the curves, their numbers, a CSV and a sentence. */
function drawPanel(id, groups, { pointsOf, traceOf, header, cells, axes, sentence, ends, what }) {
  if ($(`${id}-panel`).hidden) return;
  const colours = theme();
  const style = stylist(colours, colours.series[0]);
  const all = groups.map((group) => ({ group, points: pointsOf(group) })).filter((line) => line.points.length);
  const lines = spread(all, MOST_LINES);
  draw(
    id,
    lines.flatMap(({ group, points }) => traceOf(group, points, style(group), lines)),
    axes,
    { why: whyEmpty(groups, ends, what), click: (group) => listRuns(data.groups[group]) },
  );
  const left = all.length > lines.length ? ` Of ${spell(all.length)} groups ${lines.length} are drawn.` : "";
  const looks = $("legend").childElementCount ? " Colours and dashes as above." : "";
  $(`${id}-drawn`).textContent = `${sentence}${unfinished(groups, ends)}${looks}${left}`;
  const names = [...data.axes.map((axis) => axis.key), ...header];
  const rows = all.flatMap((line) => line.points).map((point) => [...axisCells(point.group), ...cells(point)]);
  setNumbers(`${id}-numbers`, names, rows);
  $(`download-${id}`).onclick = () => download(id, names, rows);
}

/** What a group's line in a panel has in any case. */
function panelTrace(group, points, { colour, dash }) {
  return {
    type: "scatter",
    mode: "lines",
    x: points.map((point) => point.x),
    y: points.map((point) => point.mean),
    line: { color: colour, dash, width: 1.8 },
    customdata: points.map(() => group.index),
    hoverinfo: "text",
  };
}

function drawSurvival(groups) {
  const log = view.log.has("survival");
  const pointsOf = (group) => {
    const [means, lows, highs] = group.survival?.ratio ?? [];
    const points = (group.survival?.threshold ?? []).map((threshold, place) => ({
      group,
      threshold,
      x: logOdds(threshold),
      mean: means[place],
      low: lows[place],
      high: highs[place],
    }));
    return points.filter((point) => point.mean !== null && (!log || point.mean > 0));
  };
  const traceOf = (group, points, style, lines) => [
    ...(lines.length > MOST_BANDS ? [] : [band(points, style.colour, lines.length, log)]),
    {
      ...panelTrace(group, points, style),
      hovertext: points.map((point) =>
        hover(group, `<b>${withInterval(point)} per training n-gram</b>`, `above P = ${spell(point.threshold)}`),
      ),
    },
  ];
  drawPanel("survival", groups, {
    pointsOf,
    traceOf,
    header: ["threshold", "artifacts per training n-gram", "low", "high"],
    cells: (point) => [point.threshold, point.mean, point.low, point.high],
    axes: {
      xaxis: thresholdScale(groups.flatMap((group) => group.survival?.threshold ?? [])),
      yaxis: scale("artifacts per training n-gram", log),
    },
    sentence: `Artifacts per distinct training n-gram above each threshold, at the end of training: ${INTERVAL}.`,
    ends: true,
    what: "a survival curve",
  });
}

function drawTradeoff(groups) {
  const ends = view.when === "end";
  const what = ends
    ? `Each point is a group at the end of training, the ${INTERVAL} in both directions.`
    : "Each line is a group over training, the mean over its seeds; the large marker is the last evaluation.";
  drawPanel("tradeoff", groups, {
    pointsOf: ends ? endPoints : trainingPoints,
    traceOf: (group, points, style) => [tradeoffTrace(group, points, style, ends)],
    header: [...(ends ? [] : ["step"]), ...[WRONG, RECALL].flatMap((name) => [name, `${name} low`, `${name} high`])],
    cells: (point) => [
      ...(ends ? [] : [point.step]),
      point.x,
      point.xLow,
      point.xHigh,
      point.mean,
      point.low,
      point.high,
    ],
    axes: { xaxis: scale(WRONG, false), yaxis: { ...scale(RECALL, false), range: [0, 1.03] } },
    sentence: `Recall, the share of the held-out n-grams that the model says, against hallucinations per labelled unseen
      context. ${what} Up and to the left is better.`,
    ends,
    what: "both recall and hallucinations per context",
  });
}

/** A point of the panel from [mean, low, high] of both metrics; none where one is undefined. */
function tradeoffPoint(group, recall, wrong, step) {
  if ((recall?.[0] ?? null) === null || (wrong?.[0] ?? null) === null) return [];
  const [[mean, low, high], [x, xLow, xHigh]] = [recall, wrong];
  return [{ group, step, x, xLow, xHigh, mean, low, high }];
}

function endPoints(group) {
  return tradeoffPoint(group, group.final[RECALL], group.final[WRONG], null);
}

function trainingPoints(group) {
  const at = (name, place) => group.curves[name]?.map((part) => part[place]);
  return group.curves.step.flatMap((step, place) =>
    tradeoffPoint(group, at(RECALL, place), at(WRONG, place), step),
  );
}

function tradeoffTrace(group, points, style, ends) {
  const { colour, symbol } = style;
  const wrong = (point) => withInterval({ mean: point.x, low: point.xLow, high: point.xHigh });
  return {
    ...panelTrace(group, points, style),
    mode: ends ? "markers" : "lines+markers",
    marker: { color: colour, symbol, size: points.map((_, place) => (place === points.length - 1 ? 9 : 3)) },
    ...(ends
      ? {
          error_y: bars(points, colour, ["mean", "low", "high"]),
          error_x: bars(points, colour, ["x", "xLow", "xHigh"]),
        }
      : {}),
    hovertext: points.map((point) =>
      hover(
        group,
        `<b>recall ${withInterval(point)}</b>`,
        `<b>hallucinations per context ${wrong(point)}</b>`,
        ends ? "at the end" : `at step ${spell(point.step)}`,
      ),
    ),
  };
}

// ------------------------------------------------------------------------------------------------------- lists of runs

/** Lists the runs of a group under the curves, each a button that opens it. */
function listRuns(group) {
  $("group").hidden = false;
  $("group-title").textContent = `${counted(group.runs.length, "run")} with ${describe(group)}`;
  $("group-runs").replaceChildren(
    ...group.runs.map((run) =>
      h(
        "li",
        h(
          "button",
          { type: "button", class: "link", "data-run": run, click: () => openRun(run) },
          h("code", runName(run)),
        ),
        ` ${visible(cellOf("state", run) ?? "")}`,
      ),
    ),
  );
  $("group").scrollIntoView({ block: "nearest" });
  $("group-title").focus({ preventScroll: true });
}

function drawTable(groups) {
  const runs = shownRuns(groups);
  const pages = Math.max(1, Math.ceil(runs.length / PAGE));
  view.page = Math.min(view.page, pages - 1);
  const shown = data.table.columns
    .map((one, place) => ({ ...one, place }))
    .filter((one) => one.name === "run_id" || view.columns.has(one.name));
  shown.sort((a, b) => (b.name === "run_id") - (a.name === "run_id")); // what opens a run stands first
  const part = runs.slice(view.page * PAGE, (view.page + 1) * PAGE);
  const numeric = new Set(
    shown
      .filter((one) => part.some((run) => typeof data.table.values[one.place][run] === "number"))
      .map((one) => one.name),
  );
  $("runs").replaceChildren(
    h(
      "thead",
      h(
        "tr",
        shown.map((one) => headCell(one.name, numeric.has(one.name))),
      ),
    ),
    h(
      "tbody",
      part.map((run) =>
        h(
          "tr",
          { "data-run": run },
          shown.map((one) => bodyCell(one, run)),
        ),
      ),
    ),
  );
  const from = view.page * PAGE + 1;
  $("page").textContent = runs.length
    ? `Rows ${spell(from)} to ${spell(from + part.length - 1)} of ${spell(runs.length)}`
    : "No rows";
  $("previous").disabled = view.page === 0;
  $("next").disabled = view.page === pages - 1;
  $("download-table").onclick = () =>
    download(
      "runs",
      shown.map((one) => one.name),
      runs.map((run) => shown.map((one) => data.table.values[one.place][run])),
    );
  const shownOf = (part, all, noun) =>
    part.length < all.length ? `${spell(part.length)} of ${counted(all.length, noun)}` : counted(all.length, noun);
  const words = `Shown: ${shownOf(runs, groupOf, "run")}, in ${shownOf(groups, data.groups, "group")}. Runs of one group
    differ in the seed alone.`;
  if ($("count").textContent !== words) $("count").textContent = words;
}

function headCell(name, numeric) {
  const sorted = view.sort === name ? "ascending" : view.sort === `-${name}` ? "descending" : null;
  const sort = () => {
    change(() => {
      view.sort = view.sort === name ? `-${name}` : name;
      view.page = 0;
    }, showTable);
    document.querySelector(`#runs th[data-column="${CSS.escape(name)}"] button`).focus(); // the table was built anew
  };
  return h(
    "th",
    { scope: "col", "data-column": name, "aria-sort": sorted, class: numeric && "number" },
    h("button", { type: "button", click: sort }, visible(name)),
  );
}

function bodyCell({ name, place }, run) {
  const value = data.table.values[place][run];
  if (name === "run_id") return h("td", h("button", { type: "button", class: "link" }, visible(value)));
  const isConfig = data.table.columns[place].kind === "config";
  const nowhere = groupOf[run].values[axisIndex(name)] === null;
  const text = isConfig && !nowhere ? spellValue(value) : spell(value);
  return h("td", { class: typeof value === "number" ? "number" : text.length > 40 && "wrap" }, text);
}

// ------------------------------------------------------------------------------------------------------------ controls

/** Fills a <select>; `choices` are [value, text] or {group, choices}. */
function fill(select, choices, chosen) {
  const option = ([value, text]) => h("option", { value, selected: value === chosen }, short(text, 70));
  select.replaceChildren(
    ...choices.map((one) =>
      Array.isArray(one) ? option(one) : h("optgroup", { label: one.group }, one.choices.map(option)),
    ),
  );
}

/** Sets all controls to the view. */
function showControls() {
  const axes = data.axes.map((axis) => [axis.key, axisName(axis)]);
  const { run, colour, dash } = styled();
  const nameOf = (place) => (place === EACH ? "each line" : place < 0 ? "none" : axisName(data.axes[place]));
  const auto = (place) => ["auto", `by itself: ${nameOf(place)}`];
  const free = axes.filter((_, place) => place !== run);
  fill(
    $("y"),
    data.metrics.map((one) => [one.name, one.name]),
    view.y,
  );
  const facts = data.xs.map((name) => [name, visible(name)]);
  fill(
    $("x"),
    [
      ["step", "training step"],
      ...(axes.length ? [{ group: "keys", choices: axes }] : []),
      ...(facts.length ? [{ group: "facts", choices: facts }] : []),
    ],
    view.x,
  );
  fill($("colour"), [auto(colour), ["none", "none"], ["each", "each line"], ...free], view.colour);
  fill(
    $("dash"),
    [auto(dash), ["none", "none"], ...free.filter(([key]) => data.axes[axisIndex(key)].values.length <= DASHES.length)],
    view.dash,
  );
  $("log-x").checked = view.log.has("x");
  $("log-x").disabled = data.axes[axisIndex(view.x)]?.numeric === false;
  $("log-y").checked = view.log.has("y");
  $("log-survival").checked = view.log.has("survival");
  $("tradeoff-when").value = view.when;
  for (const box of $("filters").querySelectorAll("input"))
    box.checked = !view.hidden.get(Number(box.dataset.place))?.has(Number(box.dataset.value));
  for (const box of $("column-choices").querySelectorAll("input")) box.checked = view.columns.has(box.value);
}

/** A fieldset of checkboxes with buttons for all and none of them. */
function choices(name, title, boxes, setAll) {
  const button = (word, shown) =>
    h(
      "button",
      {
        type: "button",
        class: "link",
        [`data-${word}`]: true,
        "aria-label": `${word} of ${title}`,
        click: () => setAll(shown),
      },
      word,
    );
  return h(
    "fieldset",
    { "data-axis": name },
    h("legend", title),
    h("div", { class: "values" }, button("all", true), button("none", false), boxes),
  );
}

function buildFilters() {
  $("filters").replaceChildren(
    ...data.axes.map((axis, place) => {
      const hide = (indices, hidden) =>
        change(() => {
          const set = view.hidden.get(place) ?? view.hidden.set(place, new Set()).get(place);
          for (const index of indices) hidden ? set.add(index) : set.delete(index);
          view.page = 0;
        });
      const boxes = axis.values.map((value, index) =>
        h(
          "label",
          h("input", {
            type: "checkbox",
            "data-place": place,
            "data-value": index,
            change: ({ target }) => hide([index], !target.checked),
          }),
          short(spellValue(value), 60),
        ),
      );
      return choices(axis.key, axisName(axis), boxes, (shown) => hide(axis.values.keys(), !shown));
    }),
  );
  $("filter-box").hidden = !data.axes.length;
}

function buildColumns() {
  const kinds = { status: "Status", config: "Config", fact: "Facts", metric: "Metrics at the end" };
  const show = (names, shown) =>
    change(() => names.forEach((name) => (shown ? view.columns.add(name) : view.columns.delete(name))), showTable);
  $("column-choices").replaceChildren(
    ...Object.entries(kinds)
      .map(([kind, title]) => {
        const names = data.table.columns
          .filter((one) => one.kind === kind && one.name !== "run_id")
          .map((one) => one.name);
        const boxes = names.map((name) =>
          h(
            "label",
            h("input", { type: "checkbox", value: name, change: ({ target }) => show([name], target.checked) }),
            visible(name),
          ),
        );
        return names.length ? choices(`columns ${kind}`, title, boxes, (shown) => show(names, shown)) : null;
      })
      .filter(Boolean),
  );
}

/** Changes the view, draws what has changed, and keeps it in the address. */
function change(edit, draw = show) {
  edit();
  draw();
  saveView();
}

/** Draws the table alone, which is quick. */
function showTable() {
  showControls();
  drawTable(shownGroups());
}

function saveView() {
  history.replaceState(null, "", `#${toHash()}`);
}

/** Draws everything that the view says. */
function show() {
  const groups = shownGroups();
  showControls();
  drawCurves(groups);
  drawTradeoff(groups);
  drawSurvival(groups);
  drawTable(groups);
}

function listen() {
  for (const name of ["y", "x", "colour", "dash"])
    $(name).onchange = ({ target }) => change(() => (view[name] = target.value));
  $("tradeoff-when").onchange = ({ target }) => change(() => (view.when = target.value));
  for (const name of ["x", "y", "survival"]) {
    $(`log-${name}`).onchange = ({ target }) =>
      change(() => (target.checked ? view.log.add(name) : view.log.delete(name)));
  }
  $("reset").onclick = () => change(() => (view.hidden = new Map()));
  $("previous").onclick = () => change(() => (view.page -= 1), showTable);
  $("next").onclick = () => change(() => (view.page += 1), showTable);
  $("group-close").onclick = () => void ($("group").hidden = true);
  $("runs").onclick = ({ target }) => {
    const row = target.closest("tbody tr");
    if (row) openRun(Number(row.dataset.run));
  };
  $("run-close").onclick = () => $("run").close();
  $("run").onclose = closeRun;
  $("run").onclick = ({ target }) => {
    if (target === $("run")) $("run").close(); // a click beside the dialog; to return false would undo all others
  };
  for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", redraw);
  addEventListener("hashchange", () => {
    view = fromHash(location.hash);
    show();
    if (view.run && !$("run").open) openNamed(view.run);
  });
}

/** Draws again in the colours of another medium. */
function redraw() {
  show();
  if ($("run").open) drawRun?.();
}

// --------------------------------------------------------------------------------------------------------------- start

/** Evaluates the library that stands in the page; inline, since the page may ask nobody. */
async function loadPlotly() {
  document.head.append(h("script", await inflate($("library").textContent, true)));
  $("library").remove();
}

async function start() {
  document.body.dataset.state = "unpacking";
  await painted();
  data = await inflate($("data").textContent);
  $("data").remove();
  groupOf = new Array(data.table.values[0]?.length ?? 0);
  data.groups.forEach((group, index) => {
    group.index = index;
    for (const run of group.runs) groupOf[run] = group;
  });
  $("made").textContent = `Made ${visible(data.made.date)} by tc-sweeps ${visible(data.made.version)}`;
  [$("left-out").textContent, $("left-out").hidden] = [data.left_out ? visible(data.left_out) : "", !data.left_out];
  await loadPlotly();
  view = fromHash(location.hash);
  $("survival-panel").hidden = !data.groups.some((group) => group.survival);
  $("tradeoff-panel").hidden = ![RECALL, WRONG].every((name) => data.metrics.some((one) => one.name === name));
  buildFilters();
  buildColumns();
  if (matchMedia("(max-width: 900px)").matches) $("filter-box").open = false;
  listen();
  $("main").hidden = false;
  show();
  $("progress").hidden = true;
  document.body.dataset.state = "ready";
  if (view.run) openNamed(view.run);
}

start().catch((error) => {
  document.body.dataset.state = "failed";
  $("progress").textContent = `The charts cannot be drawn: ${error.message}`;
  throw error;
});
