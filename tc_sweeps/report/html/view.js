/* What is known and what of it is shown: the data, the view, and the lines that follow from both. Nothing is drawn.

The data (made by payload.py; numbers are finite, or null where undefined)
  title, made {date, version}, sweeps [...]           the summary is static HTML, made with the page
  axes     [{key, values, numeric, also}]             keys in which the runs differ, the seed left out
  metrics  [{name, about, share}]
  xs       [name]                                     facts that differ between groups
  groups   [{values, runs, facts, final, curves, survival?}]
             values    per axis an index into its values, or null where its sweep or world knows nothing of the axis
             runs      rows of the table: the seeds of this group
             final     metric -> [mean, low, high, n]
             curves    step -> [step], metric -> [[mean], [low], [high], [n]]; without the runs that failed
             survival  {threshold: [...], ratio: [[mean], [low], [high], [n]]}; of finished runs, as final
  table    {columns: [{name, kind}], values: [column]}
  details  {chunks: [base64], of: [[chunk, place] | null]}      one run in full, inflated when it is opened
  left_out a sentence, or null */

const RECALL = "generalization/recall";
const WRONG = "hallucination/per_context";
const STATES = {
  finished: ["has finished", "have finished"],
  running: ["still trains", "still train"],
  queued: ["is queued", "are queued"],
  failed: ["failed", "failed"],
  pruned: ["was ended by the search", "were ended by the search"],
  interrupted: ["was interrupted", "were interrupted"],
};
const EACH = -2; // in the place of an axis: a colour for each line
const COLUMNS = [
  "run_id",
  "state",
  "seed",
  "artifacts/count",
  "artifacts/per_ngram",
  "artifacts/ceiling",
  RECALL,
  WRONG,
  "train/accuracy",
];
let data; // as above
let view; // what the reader chose: see `defaultView`
let groupOf; // per run its group

// ------------------------------------------------------------------------------------------------------- what is known

/** A column of the table by its name, or undefined. */
function column(name) {
  const place = data.table.columns.findIndex((one) => one.name === name);
  return data.table.values[place];
}

function cellOf(name, run) {
  return column(name)?.[run] ?? null;
}

function metric(name) {
  return data.metrics.find((one) => one.name === name) ?? { name, about: "", share: false };
}

function axisIndex(key) {
  return data.axes.findIndex((axis) => axis.key === key);
}

/** `model.width (with model.heads)` for keys that go along; whatever goes along with a sweep, its name says it. */
function axisName({ key, also }) {
  return also.length && key !== "sweep" ? `${visible(key)} (with ${also.map(visible).join(", ")})` : visible(key);
}

/** A group's values on some axes, one string each: `model.width 8`. */
function valuesOf(group, places = [...data.axes.keys()]) {
  return places
    .filter((place) => group.values[place] !== null)
    .map((place) => `${visible(data.axes[place].key)} ${spellValue(data.axes[place].values[group.values[place]])}`);
}

/** A group's value on an axis; undefined where it has none. */
function valueOn(place, group) {
  return data.axes[place].values[group.values[place]];
}

function describe(group) {
  return valuesOf(group).join(", ") || "all runs";
}

/** `1a2b3c4d5e6f7081 (seed 0)`. */
function runName(run) {
  const seed = cellOf("seed", run);
  return `${visible(cellOf("run_id", run))}${seed === null ? "" : ` (seed ${seed})`}`;
}

/** The axes along which groups differ, those of a sweep (its place among the sweeps) or all (undefined). */
const axesWithin = memoized((sweep) => {
  const groups = data.groups.filter((group) => [undefined, group.values[axisIndex("sweep")]].includes(sweep));
  return [...data.axes.keys()].filter((place) => new Set(groups.map((group) => group.values[place])).size > 1);
});

/** Whether a run has been evaluated, so that it has a curve. */
const evaluated = memoized((run) =>
  data.table.columns.some(({ kind }, place) => kind === "metric" && data.table.values[place][run] !== null),
);

function stateOf(run) {
  return cellOf("state", run);
}

/** `8 runs still train, 7 are queued`: some runs by their states. */
function inStates(runs) {
  const counts = Object.keys(STATES).map((state) => [state, runs.filter((run) => stateOf(run) === state).length]);
  return counts
    .filter(([, count]) => count)
    .map(([state, count], place) => {
      const number = place ? spell(count) : counted(count, "run");
      return `${number} ${STATES[state][count === 1 ? 0 : 1]}`;
    })
    .join(", ");
}

/** The runs of some groups that a chart draws: the finished ones of the end, over training all that have a curve. */
function drawnRuns(groups, ends) {
  const isDrawn = (run) => stateOf(run) === "finished" || (!ends && stateOf(run) !== "failed" && evaluated(run));
  return groups.flatMap((group) => group.runs).filter(isDrawn);
}

/** Which runs have not finished and whether a chart draws them; nothing where all have. */
function unfinished(groups, ends) {
  const drawn = new Set(drawnRuns(groups, ends));
  const left = groups.flatMap((group) => group.runs).filter((run) => !drawn.has(run));
  const partly = [...drawn].filter((run) => stateOf(run) !== "finished");
  const come = partly.length === 1 ? "it has come" : "they have come";
  const said = partly.length ? ` ${inStates(partly)}: drawn as far as ${come}.` : "";
  return left.length ? `${said} ${inStates(left)}: not drawn.` : said;
}

/** The axes a fact follows: those which, changed alone, change it. */
const driversOf = memoized((fact) =>
  data.axes
    .map((_, place) => place)
    .filter((place) => {
      const known = new Map();
      return data.groups.some((group) => {
        const others = group.values.filter((_, other) => other !== place).join();
        const value = group.facts[fact] ?? null;
        if (known.has(others)) return known.get(others) !== value;
        known.set(others, value);
        return false;
      });
    }),
);

function memoized(compute) {
  const known = new Map();
  return (key) => known.get(key) ?? known.set(key, compute(key)).get(key);
}

// ------------------------------------------------------------------------------------------------------------ the view

/** What is shown before the reader chooses anything. */
function defaultView() {
  const names = data.metrics.map((one) => one.name);
  const y = ["artifacts/per_ngram", "artifacts/count"].find((name) => names.includes(name)) ?? names[0] ?? "";
  const trained = data.groups.some((group) => group.curves.step.length > 1);
  return {
    y,
    x: trained || !data.axes.length ? "step" : data.axes[0].key,
    colour: "auto",
    dash: "auto",
    log: new Set(),
    when: "training",
    hidden: new Map(),
    sort: null,
    page: 0,
    columns: defaultColumns(),
    run: null,
  };
}

function defaultColumns() {
  const axes = data.axes.map((axis) => axis.key);
  const wanted = new Set([...COLUMNS, ...axes]); // the sweep among the axes where there are several
  return new Set(
    data.table.columns
      .filter(
        (one, place) =>
          wanted.has(one.name) && (one.kind !== "metric" || data.table.values[place].some((value) => value !== null)),
      )
      .map((one) => one.name),
  );
}

/** The axis along which a line runs: x itself, or for a fact an axis it follows; -1 where a group is a line. */
function along() {
  if (view.x === "step") return -1;
  const own = axisIndex(view.x);
  if (own >= 0) return own;
  const drivers = driversOf(view.x);
  const free = drivers.find((place) => ![view.colour, view.dash].includes(data.axes[place].key));
  return free ?? drivers[0] ?? -1;
}

/** The line on which a group is; lines run along the axis `run`. */
function lineOf(group, run) {
  return group.values.filter((_, place) => place !== run).join();
}

/** The axes told by colour and by dash of lines along the axis `run` (-1: none; EACH): those asked for or first free.
 *
 * Several sweeps seldom differ in the same keys: where these leave some of a few lines alike, each has a colour. */
function styled(run = along()) {
  const free = [...data.axes.keys()].filter((place) => place !== run);
  const named = { none: -1, each: EACH };
  const asked = (name) => named[name] ?? free.find((place) => data.axes[place].key === name) ?? null;
  const first = (other, most) => free.find((place) => place !== other && data.axes[place].values.length <= most) ?? -1;
  let colour = asked(view.colour) ?? first(asked(view.dash), Infinity);
  let dash = asked(view.dash) ?? first(colour, DASHES.length);
  const count = (key) => new Set(data.groups.map(key)).size;
  const lines = count((group) => lineOf(group, run));
  const looks = count((group) => [group.values[colour], group.values[dash]].join());
  if (view.colour === "auto" && axisIndex("sweep") >= 0 && looks < lines && lines <= MOST_ENTRIES) colour = EACH;
  const bySweep = ({ key, values }) => key === "sweep" && values.length <= DASHES.length;
  if (colour === EACH && view.dash === "auto") dash = free.find((place) => bySweep(data.axes[place])) ?? -1;
  return { colour, dash };
}

/** The view as it stands in the address. */
function toHash() {
  const usual = defaultView();
  const parts = new URLSearchParams();
  for (const name of ["y", "x", "colour", "dash", "when", "sort", "run"]) {
    if (view[name] !== usual[name]) parts.set(name, view[name]);
  }
  if (view.page) parts.set("page", view.page + 1);
  if (view.log.size) parts.set("log", [...view.log].join());
  for (const [place, hidden] of view.hidden) {
    const { key, values } = data.axes[place];
    if (hidden.size) parts.set(`hide:${key}`, JSON.stringify([...hidden].map((index) => values[index])));
  }
  if (String([...view.columns]) !== String([...usual.columns])) parts.set("columns", JSON.stringify([...view.columns]));
  return parts.toString();
}

/** The view that an address asks for; what it names and is not there is left out. */
function fromHash(hash) {
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const made = defaultView();
  const has = (name, known) => asked.has(name) && known.includes(asked.get(name)) && (made[name] = asked.get(name));
  const keys = data.axes.map((axis) => axis.key);
  const columns = data.table.columns.map((one) => one.name);
  has(
    "y",
    data.metrics.map((one) => one.name),
  );
  has("x", ["step", ...keys, ...data.xs]);
  has("colour", ["none", "each", ...keys]);
  has("dash", ["none", ...keys]);
  has("when", ["end"]);
  has(
    "sort",
    columns.flatMap((name) => [name, `-${name}`]),
  );
  made.run = asked.get("run");
  made.page = Math.max(0, (Number.parseInt(asked.get("page"), 10) || 1) - 1);
  made.log = new Set((asked.get("log") ?? "").split(",").filter((name) => ["x", "y", "survival"].includes(name)));
  data.axes.forEach(({ key, values }, place) => {
    const hidden = new Set(
      listIn(asked.get(`hide:${key}`))
        .map((value) => values.indexOf(value))
        .filter((index) => index >= 0),
    );
    if (hidden.size) made.hidden.set(place, hidden);
  });
  const chosen = listIn(asked.get("columns"));
  if (chosen.length) made.columns = new Set(columns.filter((name) => chosen.includes(name)));
  return made;
}

/** The list that a part of an address spells, or none. */
function listIn(text) {
  try {
    const list = JSON.parse(text);
    return Array.isArray(list) ? list : [];
  } catch {
    return [];
  }
}

function shownGroups() {
  const hidden = [...view.hidden].filter(([, values]) => values.size);
  return data.groups.filter((group) => hidden.every(([place, values]) => !values.has(group.values[place])));
}

/** The rows of the table that the filters leave, as sorted. */
function shownRuns(groups) {
  const all = groups.length === data.groups.length;
  const shown = new Set(groups);
  const runs = data.table.values[0].map((_, run) => run).filter((run) => all || shown.has(groupOf[run]));
  if (!view.sort) return runs;
  const down = view.sort.startsWith("-") ? -1 : 1;
  const values = column(down < 0 ? view.sort.slice(1) : view.sort);
  return runs.sort((a, b) => compare(values[a], values[b], down) || a - b);
}

/** Numbers before words, nothing last in either direction. */
function compare(a, b, down) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return down * (a - b);
  if (typeof a !== typeof b) return down * (typeof a === "number" ? -1 : 1);
  return down * String(a).localeCompare(String(b), "en", { numeric: true });
}

// --------------------------------------------------------------------------------------------------------------- lines

/** The lines to draw: {group, points: [{group, x, mean, low, high, n, ceiling}]}, x ascending. */
function linesOf(groups) {
  if (view.x === "step") {
    return groups
      .map((group) => ({ group, points: stepPoints(group) }))
      .filter((line) => line.points.some((point) => point.mean !== null));
  }
  const run = along();
  const lines = new Map();
  for (const group of groups) {
    const [mean, low, high, n] = group.final[view.y] ?? [null];
    const x = xOf(group);
    if (mean === null || x === null) continue;
    const key = lineOf(group, run);
    if (!lines.has(key)) lines.set(key, { group, points: [] });
    const ceiling = ceilingOf(group, group.final["artifacts/ceiling"]?.[0]);
    lines.get(key).points.push({ group, x, mean, low, high, n, ceiling });
  }
  for (const line of lines.values()) line.points.sort((a, b) => a.x - b.x);
  return [...lines.values()];
}

function stepPoints(group) {
  const [means, lows, highs, counts] = group.curves[view.y] ?? [[]];
  const ceilings = group.curves["artifacts/ceiling"]?.[0] ?? [];
  return means.map((mean, place) => ({
    group,
    x: group.curves.step[place],
    mean,
    low: lows[place],
    high: highs[place],
    n: counts[place],
    ceiling: ceilingOf(group, ceilings[place]),
  }));
}

/** A group's place on the x axis, null for none; values that are no numbers stand in their order. */
function xOf(group) {
  const place = axisIndex(view.x);
  if (place < 0) return group.facts[view.x] ?? null;
  return data.axes[place].numeric ? (valueOn(place, group) ?? null) : group.values[place];
}

/** The most artifacts a model of this group can have, in the units of the chosen metric; null where unknown. */
function ceilingOf(group, ceiling) {
  if (ceiling === null || ceiling === undefined) return null;
  if (view.y === "artifacts/count") return ceiling;
  const ngrams = group.facts["corpus/train_ngrams"];
  return view.y === "artifacts/per_ngram" && ngrams ? ceiling / ngrams : null;
}
