/* The curves: a metric over training or against anything, one line per group or along an axis, with legend and CSV. */

const MOST_LINES = 200; // more cannot be told apart, and take seconds to draw
const MOST_BANDS = 40; // above this many lines intervals cover each other
const MOST_ENTRIES = 14; // of an axis in the legend
const INTERVAL = "mean over seeds with its 95 % Student t interval";

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
  const hasFewer = ([least, most]) => least < most;
  const faint = stepwise ? lines.filter(({ points }) => hasFewer(runsBehind(points))) : [];
  const curves = [
    ...faint.map((line) => faintTrace(line, style(line.group))),
    ...lines.map((line) => curveTrace(line, style(line.group), stepwise, lines.length)),
  ];
  const axes = { xaxis: xScale(), yaxis: scale(view.y, log, metric(view.y).share) };
  const why = whyEmpty(groups, !stepwise, stepwise ? view.y : `both ${view.y} and ${view.x}`);
  const click = (group) => listRuns(data.groups[group]);
  draw("chart", [...bands, ...ceilings, ...curves], axes, { why, click });
  $("drawn").replaceChildren(...drawnSentence(groups, all, lines, banded));
  drawLegend("legend", groups, style, along(), { ceiling: ceilings.length > 0, faint: faint.length > 0 });
  const [header, rows] = [curveHeader(), curveRows(all)];
  setNumbers("chart-numbers", header, rows);
  $("download-curves").onclick = () => download("curves", header, rows);
}

/** How many runs are behind the points that are drawn of a curve, at least and at most. */
function runsBehind(points) {
  return extent(points.filter((point) => point.mean !== null).map((point) => point.n));
}

/** A curve without the points of fewer runs: where some have not come so far or are undefined, its mean may leap. */
function wholeOf(points) {
  const [, most] = runsBehind(points);
  return points.map((point) => (point.n === most ? point : { ...point, mean: null, low: null, high: null }));
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
        `at ${stepwise ? "step" : plain(view.x)} ${plain(xText(point))}`,
        `${point.n > 1 ? "the mean of " : ""}${counted(point.n ?? 0, "run")}`,
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
  const [few, many] = runsBehind(lines.flatMap((line) => line.points));
  const each = few === many ? counted(few, "run") : `${few} to ${many} runs`;
  const said = [` Each point is the ${INTERVAL}; ${each} a point.`];
  if (many === 1) said[0] = " Each point is one run, hence without an interval.";
  said.push(unfinished(groups, !stepwise));
  const groupsDrawn = new Set(all.flatMap((line) => line.points).map((point) => point.group));
  const without = drawnRuns(groups.filter((group) => !groupsDrawn.has(group)), !stepwise);
  if (without.length) {
    const missing = stepwise ? visible(view.y) : `${visible(view.y)} or no ${visible(view.x)}`;
    said.push(` ${counted(without.length, "run")} with no ${missing}: not drawn.`);
  }
  const { colour, dash } = styled();
  const differs = (place) => new Set(lines.map(({ group }) => group.values[place])).size > 1;
  const same = data.axes.filter((_, place) => ![along(), colour, dash].includes(place) && differs(place));
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
function drawLegend(id, groups, style, run, { ceiling = false, faint = false } = {}) {
  const { colour, dash } = styled(run);
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
  $(id).replaceChildren(...items);
}

/** A group for each value of an axis among some groups, as far as a legend has room; those without a value last. */
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
  const sweep = axisIndex("sweep") === run ? -1 : axisIndex("sweep"); // lines may also run along the sweeps
  const lines = [...new Map(groups.map((group) => [lineOf(group, run), group])).values()];
  const names = [...new Set(lines.map((group) => group.values[sweep]))];
  return names.map((name) => {
    const places = axesWithin(name).filter((place) => place !== run);
    const own = thinned(lines.filter((group) => group.values[sweep] === name));
    const words = (group) => valuesOf(group, places).join(", ") || "all runs";
    const entries = own.map((group) => entry([style(group).colour, style(group).dash], words(group)));
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
  const x = hasOwnX() ? [view.x] : [];
  return [...data.axes.map((axis) => axis.key), ...x, view.y, "low", "high", "runs", "ceiling"];
}

function curveRows(lines) {
  return lines
    .flatMap((line) => line.points)
    .filter((point) => point.mean !== null)
    .map(({ group, x, mean, low, high, n, ceiling }) => {
      return [...axisCells(group), ...(hasOwnX() ? [x] : []), mean, low, high, n, ceiling];
    });
}
