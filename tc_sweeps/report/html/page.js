/* The report's page: reads the data that stand in it, and draws them.

tools.js, charts.js, view.js, curves.js, panels.js, run.js and this file are joined in this order into one script of the
page.
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

const PAGE = 50; // rows of the table at a time

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
