// The browser of items: what to show, and a page of it.

const ITEMS_A_PAGE = 25;
const SIGNS = { won: "▲ ", lost: "▼ ", "both right": "✓ ", "both wrong": "✗ ", right: "✓ ", wrong: "✗ " };
const TONES = { won: "good", right: "good", lost: "bad", wrong: "bad" };

/** A text with all places of the words marked. */
function marked(text, words) {
  const lowered = text.toLowerCase();
  // Lower case may be of another length; then places would not fit.
  if (!words.length || lowered.length !== text.length) return [text];
  const parts = [];
  let at = 0;
  while (at < text.length) {
    let next = -1;
    let length = 0;
    for (const word of words) {
      const place = lowered.indexOf(word, at);
      if (place >= 0 && (next < 0 || place < next)) [next, length] = [place, word.length];
    }
    if (next < 0) break;
    parts.push(text.slice(at, next), make("mark", {}, text.slice(next, next + length)));
    at = next + length;
  }
  parts.push(text.slice(at));
  return parts;
}

function answerRow(data, item, model, words) {
  const place = item[ANSWERS][model];
  const right = item[RIGHT][model];
  const parts = place < 0 ? ["(not known)"] : marked(item[TEXTS][place], words);
  const answer = make("dd", { dir: "auto" }, ...parts);
  if (right === "1") answer.append(" ", make("span", { className: "good" }, "✓ right"));
  if (right === "0") answer.append(" ", make("span", { className: "bad" }, "✗ wrong"));
  const nats = item[NATS] && item[NATS][model];
  if (nats !== null && nats !== undefined) {
    const text = typeof nats === "number" ? nats.toFixed(2).replace(/^-(0\.00)$/, "$1") : nats;
    answer.append(" ", make("span", { className: "nats", title: "log-likelihood of the right answer" }, `${text} nats`));
  }
  return make("div", {}, make("dt", {}, data.models[model]), answer);
}

function itemElement(task, item, model, against, words) {
  const data = task.data;
  const outcome = task.outcome(item, model, against);
  const head = make("h4", {}, make("span", {}, `${data.members[item[MEMBER]]} ${item[NUMBER]}`));
  if (outcome) head.append(make("span", { className: TONES[outcome] || "" }, `${SIGNS[outcome]}${outcome}`));
  const answers = make("dl");
  if (item[TEXTS][1]) {
    answers.append(make("div", {}, make("dt", {}, "right answer"), make("dd", { dir: "auto" }, ...marked(item[TEXTS][1], words))));
  }
  const first = model === against ? [model] : [against, model];
  answers.append(...first.map((one) => answerRow(data, item, one, words)));
  const element = make("article", { className: "item" }, head,
    make("p", { className: "question", dir: "auto" }, ...marked(item[TEXTS][0], words)), answers);
  const others = data.models.map((_, i) => i).filter((i) => !first.includes(i) && i < item[ANSWERS].length);
  if (others.length) {
    const list = make("dl");
    const details = make("details", {}, make("summary", {}, `${plural(others.length, "other model")}`), list);
    details.addEventListener("toggle", () => {
      if (!list.childElementCount) list.append(...others.map((one) => answerRow(data, item, one, words)));
    });
    element.append(details);
  }
  return element;
}

function labelled(text, control, className = "") {
  control.id = newId();
  return make("div", { className: `field ${className}` }, make("label", { htmlFor: control.id }, text), control);
}

function options(select, texts) {
  select.replaceChildren(...texts.map((text, value) => make("option", { value: String(value) }, text)));
}

function makeBrowser(block) {
  const tasks = [...block.querySelectorAll("script.data")].map((script) => new Task(script));
  const titles = [...block.querySelectorAll(".task h3")].map((title) => title.textContent);
  const taskSelect = make("select");
  const modelSelect = make("select");
  const againstSelect = make("select");
  const search = make("input", { type: "search", autocomplete: "off" });
  const shown = make("fieldset");
  const said = make("span", { role: "status" });
  const list = make("ol", { className: "list" });
  const page = make("input", { type: "number", min: "1", value: "1" });
  const pages = make("span");
  const buttons = [];
  let task = tasks[0];
  let found = [];
  let at = 0;

  const modelFields = [labelled("Model", modelSelect), labelled("won or lost against", againstSelect)];
  const words = () => search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const picked = () => [Number(modelSelect.value), Number(againstSelect.value)];
  const wanted = () => (shown.querySelector("input:checked") || { value: "" }).value;
  const nPages = () => Math.max(1, Math.ceil(found.length / ITEMS_A_PAGE));

  function showPage(to) {
    at = Math.min(Math.max(0, to), nPages() - 1);
    const first = at * ITEMS_A_PAGE;
    const items = found.slice(first, first + ITEMS_A_PAGE);
    const [model, against] = picked();
    const terms = words();
    list.replaceChildren(...items.map((item) => make("li", {}, itemElement(task, item, model, against, terms))));
    list.start = first + 1;
    page.value = String(at + 1);
    page.max = String(nPages());
    pages.textContent = `of ${counted(nPages())}`;
    said.textContent = found.length
      ? `Items ${counted(first + 1)}–${counted(first + items.length)} of ${counted(found.length)}`
      : "No such items";
    for (const [button, step] of buttons) button.disabled = at + step < 0 || at + step >= nPages();
  }

  function choose() {
    found = task.chosen(...picked(), wanted(), words());
    showPage(0);
  }

  function showOutcomes() {
    const before = wanted();
    const [model, against] = picked();
    const counts = task.counts(model, against);
    const names = model === against ? OUTCOMES_OF_ONE : OUTCOMES;
    const name = newId();
    const radios = ["", ...names].map((outcome) => {
      const n = outcome ? counts[outcome] || 0 : task.data.items.length;
      const radio = make("input", { type: "radio", name, value: outcome, disabled: !n && outcome !== "" });
      radio.checked = outcome === (names.includes(before) && counts[before] ? before : "");
      return make("label", {}, radio, `${SIGNS[outcome] || ""}${outcome || "all"}`, make("span", { className: "count" }, counted(n)));
    });
    shown.replaceChildren(make("legend", {}, "Show"), ...radios);
    // Some tasks have nothing that is right or wrong.
    shown.hidden = !names.some((outcome) => counts[outcome]);
    choose();
  }

  function showTask() {
    task = tasks[Number(taskSelect.value)];
    const models = task.data.models;
    for (const select of [modelSelect, againstSelect]) options(select, models);
    modelSelect.value = String(Math.min(1, models.length - 1));
    againstSelect.value = "0";
    for (const field of modelFields) field.hidden = models.length < 2;
    block.querySelectorAll(".task").forEach((one, i) => {
      one.classList.toggle("other", tasks[i] !== task);
    });
    showOutcomes();
  }

  function pagerButton(text, step, returns) {
    const button = make("button", { type: "button" }, text);
    buttons.push([button, step]);
    button.addEventListener("click", () => {
      showPage(at + step);
      // Whoever pressed a button below the list goes on reading at its top.
      if (returns) block.querySelector(".pager").scrollIntoView({ block: "start" });
      if (button.disabled) page.focus({ preventScroll: true });
    });
    return button;
  }

  options(taskSelect, titles);
  taskSelect.addEventListener("change", showTask);
  for (const select of [modelSelect, againstSelect]) select.addEventListener("change", showOutcomes);
  search.addEventListener("input", choose);
  shown.addEventListener("change", choose);
  page.addEventListener("change", () => showPage(Number(page.value) - 1));
  page.setAttribute("aria-label", "Page");
  const taskField = labelled("Task", taskSelect);
  taskField.hidden = tasks.length < 2;
  const controls = make("div", { className: "controls", role: "search", "aria-label": "Items to show" },
    taskField, ...modelFields, labelled("Text holds", search, "search"), shown);
  const upper = make("div", { className: "pager", role: "group", "aria-label": "Pages" },
    pagerButton("Previous", -1, false), make("span", {}, "Page "), page, pages, pagerButton("Next", 1, false), said);
  const lower = make("div", { className: "pager", role: "group", "aria-label": "Pages, again" },
    pagerButton("Previous", -1, true), pagerButton("Next", 1, true));
  block.classList.add("live");
  block.append(controls, upper, list, lower);
  showTask();
  const whenIdle = window.requestIdleCallback || setTimeout;
  for (const one of tasks) whenIdle(() => one.prepare());
}

for (const block of document.querySelectorAll(".items")) makeBrowser(block);
