// Tables: sorted by any column, filtered by words; a third press restores the order of the report.

const LEAST_ROWS_TO_SORT = 3;
const LEAST_ROWS_TO_FILTER = 10;
const inWords = new Intl.Collator("en", { numeric: true });

/** What a cell is sorted by: a number where it has one, else its text. */
function keyOf(cell) {
  return cell.dataset.k === undefined ? cell.textContent.trim() : Number(cell.dataset.k);
}

/** Numbers first, in order, then texts; the empty ones last in either direction. */
function compareKeys(one, other, direction) {
  if (one === "" || other === "") return (one === "") - (other === "");
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
  // Equal ones first: infinities have no difference.
  const order = typeof one === "number"
    ? (one === other ? 0 : one - other)
    : inWords.compare(one, other);
  return direction * order;
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const inOrder = [...body.rows];
  const grouped = inOrder.filter((row) => row.classList.contains("g"));
  const headers = [...table.tHead.rows[0].cells];

  const sort = (place, state) => {
    headers.forEach((header, i) => {
      if (i === place && state !== "none") header.setAttribute("aria-sort", state);
      else header.removeAttribute("aria-sort");
    });
    let rows = inOrder;
    if (state !== "none") {
      const direction = state === "ascending" ? 1 : -1;
      const keyed = inOrder.map((row) => [keyOf(row.cells[place]), row]);
      rows = keyed.sort((a, b) => compareKeys(a[0], b[0], direction)).map(([, row]) => row);
    }
    // Lines between groups belong to the report's order alone.
    for (const row of grouped) row.classList.toggle("g", state === "none");
    // All at once: thousands of rows moved one by one take browsers seconds.
    body.replaceChildren();
    body.append(...rows);
  };

  headers.forEach((header, place) => {
    const button = make("button", { type: "button", className: "sort" }, ...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "none" };
      sort(place, next[header.getAttribute("aria-sort")] || "ascending");
    });
  });
}

function makeFilter(block, table) {
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const id = newId();
  const input = make("input", { type: "search", id, autocomplete: "off" });
  const said = make("span", { role: "status" });
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      n += !row.hidden;
    });
    said.textContent = words.length ? `${counted(n)} of ${plural(rows.length, "row")}` : "";
  });
  const label = make("label", { htmlFor: id }, "Filter rows", make("span", { className: "unseen" }, ` of ${block.querySelector("h3").textContent}`));
  block.querySelector(".head").append(make("div", { className: "filter" }, said, label, input));
}

for (const box of document.querySelectorAll(".box")) {
  const table = box.querySelector("table");
  const n = table.tBodies[0].rows.length;
  if (n >= LEAST_ROWS_TO_SORT) makeSortable(table);
  if (n >= LEAST_ROWS_TO_FILTER) makeFilter(box.closest(".block"), table);
  // A stop of the tab key only where there is something to scroll to.
  const scrolls = () => box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
  new ResizeObserver(() => {
    if (scrolls()) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }).observe(box);
}
