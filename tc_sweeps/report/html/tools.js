/* Small tools: elements, words, CSV, and the tables behind charts. What a user typed is text here, never markup. */

const MOST_NUMBERS = 1000; // rows of a chart's table; the CSV has all

const $ = (id) => document.getElementById(id);

/** An element. Plain objects are its attributes (functions are listeners, true is an empty one, null and false are
 * none), all else its children: nodes, texts, lists of both; what is null, undefined or false is left out. */
function h(tag, ...parts) {
  const element = document.createElement(tag);
  const isAttributes = (part) =>
    part !== null && typeof part === "object" && !Array.isArray(part) && !(part instanceof Node);
  for (const [name, value] of parts.filter(isAttributes).flatMap(Object.entries)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false && value !== undefined) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  const children = parts.filter((part) => !isAttributes(part)).flat(2);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Text with everything spelled out that turns or hides its neighbours: \u202e for a turn of direction. */
function visible(value) {
  const text = value === null || value === undefined ? "null" : String(value);
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (sign) => `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** At most `length` characters of a text. */
function short(text, length = 40) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

/** A text as plotly shows it as it is: plotly reads a little HTML in every label. */
function plain(value, length = 40) {
  return short(visible(value), length).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** A number with four digits, thousands apart; a text as it is; nothing for null. */
function spell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return visible(value);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e6)
    return Number(value.toPrecision(4)).toLocaleString("en-US", { maximumSignificantDigits: 4 });
  return value.toExponential(2);
}

/** `1 run`, `1,200 runs`. */
function counted(count, noun) {
  return `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;
}

/** A value of a config key: null is a value too. */
function spellValue(value) {
  return typeof value === "number" ? spell(value).replaceAll(",", "") : visible(value);
}

/** `a, b and c`. */
function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** The least and the greatest of numbers; a list may be longer than a call takes arguments. */
function extent(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

/** At most `most` of a list, spread evenly over it. */
function spread(list, most) {
  const every = Math.max(1, list.length / most);
  return Array.from({ length: Math.min(most, list.length) }, (_, place) => list[Math.floor(place * every)]);
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** The JSON that was put into the page as base64 of gzip; `text` gives it unread. */
async function inflate(base64, text = false) {
  const bytes = Uint8Array.from(atob(base64.trim()), (sign) => sign.charCodeAt(0));
  const stream = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
  return text ? stream.text() : stream.json();
}

/** Until the browser has painted what it has. */
function painted() {
  return new Promise((resume) => requestAnimationFrame(() => setTimeout(resume)));
}

/** One line of CSV; a text that a spreadsheet would take for a formula gets an apostrophe before it. */
function csvLine(cells) {
  const spelled = cells.map((cell) => {
    if (cell === null || cell === undefined) return "";
    if (typeof cell !== "string") return String(cell);
    const safe = /^[=+\-@\t\r]/.test(cell) ? `'${cell}` : cell;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  });
  return `${spelled.join(",")}\r\n`;
}

/** Hands the reader a CSV file. */
function download(name, header, rows) {
  const url = URL.createObjectURL(
    new Blob([csvLine(header), ...rows.map(csvLine)], { type: "text/csv;charset=utf-8" }),
  );
  h("a", { href: url, download: `${visible(data.title).replace(/[^\p{L}\p{N}._-]+/gu, "_")}_${name}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

/** A table of text and elements; numbers stand to the right. */
function table(header, rows, attributes = {}) {
  const right = header.map((_, place) => rows.some((row) => typeof row[place] === "number"));
  const cell = (tag) => (content, place) => {
    const rich = content instanceof Node;
    const about = { class: right[place] ? "number" : rich && "rich", scope: tag === "th" && "col" };
    return h(tag, about, rich ? content : spell(content));
  };
  const body = rows.map((row) => h("tr", row.map(cell("td"))));
  return h("table", attributes, h("thead", h("tr", header.map(cell("th")))), h("tbody", body));
}

/** What scrolls where it does not fit, also by the keyboard. */
function scroller(label, content) {
  return h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label }, content);
}

/** Puts a table behind a <details>, built when it is opened: the text alternative of a chart. */
function setNumbers(id, header, rows) {
  const details = $(id);
  const shown = rows.slice(0, MOST_NUMBERS);
  const build = () => {
    if (!details.open || details.childElementCount > 1) return;
    if (rows.length > shown.length) {
      details.append(h("p", { class: "quiet" }, `The first ${spell(shown.length)} of ${counted(rows.length, "row")}.`));
    }
    details.append(scroller("The numbers drawn", table(header, shown)));
  };
  details.replaceChildren(details.firstElementChild);
  details.ontoggle = build;
  build();
}
