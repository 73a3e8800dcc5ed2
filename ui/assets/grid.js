// Draws a table from what the page hands over. Text is set as text, never as markup: names come from other people's programs.
const FIRST_ROWS = 50;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

function drawCell(cell, column, row) {
  const td = element("td", column.align === "right" ? "right" : column.shape || "");
  td.setAttribute("role", "cell"); // named, because on a narrow screen a row is a block of lines
  td.dataset.label = column.label;
  let into = td;
  if (cell.depth > 0) {
    const tree = element("div", "tree");
    const rails = cell.rails || "";
    for (let level = 0; level < cell.depth - 1; level++) tree.append(element("span", rails[level] === "1" ? "rail" : "rail blank"));
    tree.append(element("span", rails[cell.depth - 1] === "1" ? "elbow on" : "elbow"));
    into = element("div");
    tree.append(into);
    td.append(tree);
  }
  if (cell.title) td.title = cell.title;
  if (cell.bar !== undefined && cell.bar !== null) {
    const bar = element("span", "bar");
    if (cell.colour) bar.style.setProperty("--rc-bar", cell.colour);
    const whole = element("i", "est");
    whole.style.width = `${Math.min(100, cell.bar * 100)}%`;
    const firm = element("i");
    firm.style.width = `${Math.min(100, (cell.firm ?? cell.bar) * 100)}%`;
    bar.append(whole, firm);
    into.append(bar);
  }
  if (cell.text) {
    const target = cell.href || (column.link && row.href);
    const words = target ? element("a", cell.href ? cell.tone || "" : "plain", cell.text) : element("span", cell.tone || "", cell.prose ? "" : cell.text);
    if (cell.prose && !target) {
      for (const part of cell.text.split(/(`[^`]+`)/)) {
        words.append(/^`[^`]+`$/.test(part) ? element("code", "", part.slice(1, -1)) : part);
      }
    }
    if (target) words.href = target;
    into.append(words);
  }
  for (const pill of cell.pills || []) {
    const drawn = element("span", `pill ${pill.tone || ""}`, pill.text);
    if (pill.title) drawn.title = pill.title;
    into.append(" ", drawn);
  }
  if (cell.sub) into.append(element("span", "sub", cell.sub));
  return td;
}

function drawNote(data) {
  const note = element("div", "note");
  if (data.caption) note.append(element("span", "", data.caption));
  if (data.address) {
    const line = element("span", "addr grow");
    line.title = `These figures come from: GET ${data.address}`;
    line.append("GET ");
    const link = element("a", "", data.address_shown || data.address);
    link.href = data.address;
    link.target = "_blank";
    link.rel = "noreferrer";
    line.append(link);
    const copy = element("button", "copy", "copy");
    copy.title = "Copy the address of these figures";
    copy.onclick = async () => {
      await navigator.clipboard.writeText(data.address);
      copy.textContent = "copied";
      setTimeout(() => { copy.textContent = "copy"; }, 1200);
    };
    note.append(line, copy);
  }
  return note;
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".rc");
  const columns = data.columns || [];
  const state = (root.gridState ||= { by: null, down: true, all: false });
  if (state.by !== null && state.by >= columns.length) state.by = null;

  function follow(event, href) {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button === 1) return;
    event.preventDefault();
    event.stopPropagation();
    setTriggerValue("go", href);
  }

  function ordered() {
    if (state.by === null) return data.rows;
    const sign = state.down ? -1 : 1;
    const key = (row) => row.cells[state.by].order ?? null;
    return [...data.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (x < y ? -1 : x > y ? 1 : 0);
    });
  }

  function drawHead() {
    const head = element("tr");
    head.setAttribute("role", "row");
    columns.forEach((column, at) => {
      const th = element("th", column.align === "right" ? "right" : "");
      th.scope = "col";
      th.setAttribute("role", "columnheader");
      if (column.help) th.title = column.help;
      if (data.sortable) {
        const button = element("button", "", column.label + (state.by === at ? (state.down ? " ↓" : " ↑") : ""));
        button.onclick = () => {
          if (state.by !== at) Object.assign(state, { by: at, down: column.align === "right" });
          else if (state.down === (column.align === "right")) state.down = !state.down;
          else state.by = null;
          draw();
        };
        th.setAttribute("aria-sort", state.by === at ? (state.down ? "descending" : "ascending") : "none");
        th.append(button);
      } else th.textContent = column.label;
      head.append(th);
    });
    return head;
  }

  function drawRow(row) {
    const tr = element("tr", `${row.href ? "go" : ""} ${row.strong ? "strong" : ""}`);
    tr.setAttribute("role", "row");
    row.cells.forEach((cell, at) => tr.append(drawCell(cell, columns[at], row)));
    tr.querySelectorAll("a").forEach((a) => { a.onclick = (event) => follow(event, a.getAttribute("href")); });
    if (row.href) tr.onclick = (event) => { if (!String(window.getSelection())) follow(event, row.href); };
    return tr;
  }

  function draw() {
    const parts = [];
    if (columns.length) {
      const table = element("table", columns.length > 2 ? "many" : "");
      table.setAttribute("role", "table");
      if (data.label) table.setAttribute("aria-label", data.label);
      const [thead, tbody, tfoot] = [element("thead"), element("tbody"), element("tfoot")];
      thead.append(drawHead());
      const rows = ordered();
      const shown = state.all || rows.length <= FIRST_ROWS * 1.2 ? rows : rows.slice(0, FIRST_ROWS);
      shown.forEach((row) => tbody.append(drawRow(row)));
      (data.footer || []).forEach((row) => tfoot.append(drawRow(row)));
      table.append(thead, tbody, tfoot);
      const scroll = element("div", "scroll");
      scroll.append(table);
      parts.push(scroll);
      if (!rows.length) parts.push(element("div", "none", data.empty || "Nothing to show."));
      if (shown.length < rows.length) {
        const more = element("button", "more", `Show all ${rows.length} rows`);
        more.onclick = () => { state.all = true; draw(); };
        parts.push(more);
      }
    }
    if (data.caption || data.address) parts.push(drawNote(data));
    root.style.setProperty("--rc-muted", "color-mix(in srgb, var(--st-text-color) 66%, transparent)");
    root.replaceChildren(...parts);
  }

  draw();
}
