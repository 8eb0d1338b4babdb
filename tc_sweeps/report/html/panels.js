/* Two more charts beside the curves: artifacts at every threshold, and generalization against hallucination. */


/** What both panels share: a line for each group, their numbers, a CSV and a sentence.
 *
 * Curves that run along an axis join groups; the panels then have a legend of their own. */
function drawPanel(id, groups, { pointsOf, traceOf, header, cells, axes, sentence, ends, what }) {
  if ($(`${id}-panel`).hidden) return;
  const colours = theme();
  const style = stylist(colours, colours.series[0], -1);
  const all = groups.map((group) => ({ group, points: pointsOf(group) })).filter((line) => line.points.length);
  const lines = spread(all, MOST_LINES);
  draw(
    id,
    lines.flatMap(({ group, points }) => traceOf(group, points, style(group), lines)),
    axes,
    { why: whyEmpty(groups, ends, what), click: (group) => listRuns(data.groups[group]) },
  );
  const left = all.length > lines.length ? ` Of ${spell(all.length)} groups ${lines.length} are drawn.` : "";
  const alike = along() < 0;
  const looks = alike && data.axes.length ? " Colours and dashes as above." : "";
  if (alike || !all.length) $(`${id}-legend`).replaceChildren();
  else drawLegend(`${id}-legend`, all.map((line) => line.group), style, -1);
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
