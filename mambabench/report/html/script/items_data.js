// Items of a task as data: what became of each between two models, and which ones hold a text.

// Places in an item, as `items.packed` writes it.
const [NUMBER, MEMBER, TEXTS, ANSWERS, RIGHT, NATS] = [0, 1, 2, 3, 4, 5];
const OUTCOMES = ["won", "lost", "both right", "both wrong"];
const OUTCOMES_OF_ONE = ["right", "wrong"];

class Task {
  constructor(script) {
    this.script = script;
    this.read = null;
    this.lowered = null;
  }

  /** The task's data, read when it is first asked for. */
  get data() {
    if (this.read === null) this.read = JSON.parse(this.script.textContent);
    return this.read;
  }

  /** What became of an item, told of a model against another; of one alone if both are the same. */
  outcome(item, model, against) {
    const [mine, other] = [item[RIGHT][model], item[RIGHT][against]];
    if (mine === "-" || other === "-" || mine === undefined) return "";
    if (model === against) return mine === "1" ? "right" : "wrong";
    if (mine === other) return mine === "1" ? "both right" : "both wrong";
    return mine === "1" ? "won" : "lost";
  }

  /** Numbers of items with each outcome. */
  counts(model, against) {
    const found = {};
    for (const item of this.data.items) {
      const outcome = this.outcome(item, model, against);
      found[outcome] = (found[outcome] || 0) + 1;
    }
    return found;
  }

  /** Read the data and make their texts ready to be searched, before either is asked for. */
  prepare() {
    if (this.lowered !== null) return;
    this.lowered = this.data.items.map((item) =>
      `${item[NUMBER]} ${this.data.members[item[MEMBER]]} ${item[TEXTS].join("\n")}`.toLowerCase());
  }

  /** Items with an outcome (any if empty) whose texts hold all words, in order. */
  chosen(model, against, outcome, words) {
    if (words.length) this.prepare();
    return this.data.items.filter((item, i) =>
      (!outcome || this.outcome(item, model, against) === outcome)
      && words.every((word) => this.lowered[i].includes(word)));
  }
}
