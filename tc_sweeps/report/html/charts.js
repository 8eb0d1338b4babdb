/* How charts look: colours from the style sheet, plotly's layout, intervals, and a line for the legend. */

const PRINTED = { width: 660, height: 300 }; // pixels of a chart on paper, as in the style sheet
const CEILING = "5px,3px"; // its dash, thinner than all others
const DASHES = ["solid", "8px,5px", "2px,4px", "10px,4px,2px,4px", "18px,6px"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x"];
const VIRIDIS = [
  "#440154",
  "#482878",
  "#3e4989",
  "#31688e",
  "#26828e",
  "#1f9e89",
  "#35b779",
  "#6ece58",
  "#b5de2b",
  "#fde725",
];
const LABELS = ["generalization", "hallucination", "unlabelled"];

// ------------------------------------------------------------------------------------------------------------- colours

/** The colours of the page as they are now: light, dark or print. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["paper", "panel", "ink", "quiet", "rule", "grid", "accent", "data", ...LABELS];
  return {
    ...Object.fromEntries(names.map((name) => [name, value(name)])),
    series: value("series").split(" "),
    shades: value("shades").split(" ").map(Number),
  };
}

function channels(hex) {
  return [1, 3, 5].map((start) => Number.parseInt(hex.slice(start, start + 2), 16));
}

function faded(hex, alpha) {
  return `rgba(${channels(hex).join()},${alpha})`;
}

/** The colour at `share` in [0, 1] of viridis. */
function shade(share) {
  const at = clamp(share, 0, 1) * (VIRIDIS.length - 1);
  const [from, to] = [Math.floor(at), Math.ceil(at)].map((place) => channels(VIRIDIS[place]));
  return `#${from
    .map((value, place) =>
      Math.round(value + (to[place] - value) * (at % 1))
        .toString(16)
        .padStart(2, "0"),
    )
    .join("")}`;
}

/** So many colours: shades for what is in order or more than the palette has, else the palette. */
function coloursOf(count, ordered, colours) {
  const [low, high] = colours.shades;
  const shaded = (ordered && count > 2) || count > colours.series.length;
  return Array.from({ length: count }, (_, place) =>
    shaded ? shade(low + ((high - low) * place) / Math.max(1, count - 1)) : colours.series[place],
  );
}

/** What gives a group its colour, dash and marker on lines along the axis `run`.
 *
 * Groups without a place on an axis look like one more value of it. */
function stylist(colours, fallback, run = along()) {
  const { colour, dash } = styled(run);
  const lines = [...new Set(data.groups.map((group) => lineOf(group, run)))];
  const { values, numeric } = data.axes[colour] ?? { values: lines, numeric: false };
  const palette = coloursOf(values.length, numeric, colours);
  const place = (group) => (colour === EACH ? lines.indexOf(lineOf(group, run)) : group.values[colour]);
  return (group) => {
    const mark = dash < 0 ? 0 : (group.values[dash] ?? data.axes[dash].values.length) % DASHES.length;
    const own = colour === -1 ? fallback : (palette[place(group)] ?? colours.quiet);
    return { colour: own, dash: DASHES[mark], symbol: SYMBOLS[mark] };
  };
}

/** A lone curve of generalizations or hallucinations has their colour. */
function metricColour(name, colours) {
  return colours[name.replace(/^judge\//, "").split("/")[0]] ?? colours.series[0];
}

// -------------------------------------------------------------------------------------------------------------- plotly

/** Draws a chart, or says in its place why there is none. */
function draw(id, traces, layout, { why = "", click } = {}) {
  const chart = $(id);
  const empty = $(`${id}-empty`);
  chart.hidden = !traces.length;
  if (empty) [empty.hidden, empty.textContent] = [traces.length > 0, why];
  if (!traces.length) return;
  const ticked = (name, axis = {}) =>
    axis.type === "log" && !axis.tickvals ? { ...axis, ...logTicks(traces.flatMap((trace) => trace[name])) } : axis;
  const axes = { xaxis: ticked("x", layout.xaxis), yaxis: ticked("y", layout.yaxis) };
  const buttons = [["toImage", ...(layout.scene ? ["resetCameraDefault3d"] : ["resetScale2d"])]];
  const config = { responsive: true, displaylogo: false, modeBarButtons: buttons };
  Plotly.react(chart, traces, mergedLayout({ ...layout, ...axes }), config);
  if (chart.dataset.listens || !click) return;
  chart.dataset.listens = "";
  chart.on("plotly_click", ({ points: [point] }) => point.customdata !== undefined && click(point.customdata));
}

function mergedLayout({ xaxis = {}, yaxis = {}, ...rest }) {
  const colours = theme();
  const printing = matchMedia("print").matches;
  const axis = ({ title, ...own }) => ({
    title: { text: plain(title, 60), font: { size: 13 }, ...(printing ? {} : { standoff: 8 }) },
    automargin: !printing, // plotly widens margins later, and paper does not wait
    zeroline: false,
    showline: true,
    ticks: "outside",
    ticklen: 4,
    gridcolor: colours.grid,
    linecolor: colours.rule,
    tickcolor: colours.rule,
    ...own,
  });
  return {
    font: { family: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", size: 12, color: colours.ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: printing ? 72 : 52, r: 14, t: 26, b: 44 },
    showlegend: false,
    hovermode: "closest",
    hoverdistance: 30,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls the page
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.quiet, activecolor: colours.accent },
    hoverlabel: {
      bgcolor: colours.panel,
      bordercolor: colours.quiet,
      font: { color: colours.ink, size: 12 },
      align: "left",
    },
    ...(printing ? { ...PRINTED, autosize: false } : { autosize: true }),
    ...rest,
    xaxis: axis(xaxis),
    yaxis: axis(yaxis),
  };
}

/** Ticks of a logarithmic axis at round numbers, as many as can be read. */
function logTicks(values) {
  const positive = values.filter((value) => value > 0);
  const [low, high] = extent(positive);
  if (!(high > low)) return {};
  const within = (ticks) => ticks.filter((tick) => tick >= low * 0.98 && tick <= high * 1.02);
  const powers = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) powers.push(power);
  const multiples = (digits) => powers.flatMap((power) => digits.map((digit) => Number(`${digit}e${power}`)));
  const step = 10 ** Math.floor(Math.log10((high - low) / 2));
  const even = Array.from({ length: 21 }, (_, place) =>
    Number(((Math.ceil(low / step) + place) * step).toPrecision(12)),
  );
  const sets = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1]].map((digits) => within(multiples(digits)));
  const wide = sets.find((ticks) => ticks.length <= 7) ?? sets.at(-1);
  const ticks =
    wide.length > 2 ? wide : within(even).filter((_, place, all) => place % Math.ceil(all.length / 7) === 0);
  return { tickvals: ticks, ticktext: ticks.map(spell) };
}

/** Where a threshold stands on its axis: thresholds are even in log-odds, and most that happens does so near 1. */
function logOdds(threshold) {
  return Math.log(threshold / (1 - threshold));
}

/** The axis of thresholds. */
function thresholdScale(thresholds) {
  const [low, high] = extent(thresholds);
  const ticks = [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999].filter(
    (tick) => tick >= low && tick <= high,
  );
  return { title: "threshold, even in log-odds", tickvals: ticks.map(logOdds), ticktext: ticks.map(String) };
}

/** An axis from zero, or a logarithmic one. */
function scale(name, logarithmic, share = false) {
  if (logarithmic) return { title: name, type: "log" };
  return { title: name, type: "linear", rangemode: "tozero", ...(share ? { tickformat: ".2~f" } : {}) };
}

// ---------------------------------------------------------------------------------------------------- pieces of charts

/** The interval of a line as a band with its gaps; on a log axis a bound of 0 or less is drawn low, not endless. */
function band(points, colour, count, log) {
  const smallest = log ? Math.min(...points.map((point) => point.mean).filter((mean) => mean > 0)) / 10 : 0;
  const [x, y] = [[], []];
  let piece = [];
  const close = () => {
    const back = [...piece].reverse();
    if (piece.length > 1) {
      x.push(...piece.map((point) => point.x), ...back.map((point) => point.x), null);
      y.push(...piece.map((point) => point.high), ...back.map((point) => Math.max(point.low, smallest)), null);
    }
    piece = [];
  };
  for (const point of points) {
    if (point.low === null || point.high === null) close();
    else piece.push(point);
  }
  close();
  const fillcolor = faded(colour, count > 12 ? 0.08 : 0.16);
  return { type: "scatter", mode: "lines", x, y, fill: "toself", fillcolor, line: { width: 0 }, hoverinfo: "skip" };
}

/** Error bars upwards and downwards of points by a part of them (`x` or `y`). */
function bars(points, colour, [mean, low, high]) {
  // The mean of equal values may lie above them by rounding.
  const half = (a, b) => (a === null || b === null ? null : Math.max(0, a - b));
  return {
    type: "data",
    symmetric: false,
    array: points.map((point) => half(point[high], point[mean])),
    arrayminus: points.map((point) => half(point[mean], point[low])),
    color: faded(colour, 0.75),
    thickness: 1.3,
    width: 3,
  };
}

/** A short piece of line. */
function swatch(colour, dash, width = 2.5) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [name, value] of Object.entries({ width: 34, height: 10, "aria-hidden": "true" }))
    svg.setAttribute(name, value);
  const attributes = {
    x1: 1,
    x2: 33,
    y1: 5,
    y2: 5,
    stroke: colour,
    "stroke-width": width,
    "stroke-dasharray": dash.replace("solid", "").replaceAll("px", ""),
  };
  for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}
