// One stream on the page: its tile, and what the dialog says of it. Names are text everywhere, never markup.

import { ageLevel, ageOf, bytes, clockTime, count, dropped, duration, isFlag, rate, reasonsOf, worst } from "./words.js";

const RATE_SECONDS = 5;

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Sets only what differs, so that a page at rest is not laid out anew. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function fill(list, pairs) {
  while (list.children.length > pairs.length * 2) list.lastChild.remove();
  while (list.children.length < pairs.length * 2) list.append(element("dt"), element("dd"));
  pairs.forEach(([term, value], i) => {
    write(list.children[2 * i], term);
    write(list.children[2 * i + 1], value);
  });
}

export function fillReasons(list, reasons) {
  while (list.children.length > reasons.length) list.lastChild.remove();
  while (list.children.length < reasons.length) list.append(element("li"));
  reasons.forEach((reason, i) => {
    const item = list.children[i];
    write(item, reason.text);
    item.className = isFlag(reason.text) ? `flag ${reason.level}` : reason.level;
    item.title = reason.title;
  });
}

/** A picture that is fetched with the page's token and shown from memory. One request at a time. */
export class Picture {
  constructor(image) {
    this.image = image;
    this.busy = false;
    this.fetched = null; // when, by performance.now()
  }

  async refresh(ask, path) {
    if (this.busy) return;
    this.busy = true;
    try {
      const answer = await ask(path);
      const blob = answer.status === 200 ? await answer.blob() : null;
      if (blob && blob.type.startsWith("image/")) this.show(URL.createObjectURL(blob));
      else if (answer.status === 204 || answer.status === 404) this.clear(); // the server has no picture of now
    } catch {
      // The server is away, and `fetched` says since when.
    } finally {
      this.busy = false;
    }
  }

  show(url) {
    const before = this.image.src;
    this.image.src = url;
    this.image.hidden = false;
    this.fetched = performance.now();
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  }

  clear() {
    if (this.image.src.startsWith("blob:")) URL.revokeObjectURL(this.image.src);
    this.image.removeAttribute("src");
    this.image.hidden = true;
    this.fetched = null;
  }
}

export class Tile {
  constructor(name, open) {
    this.name = name;
    this.node = element("article", "tile");
    this.node.dataset.stream = name;
    const screen = element("div", "screen");
    const image = element("img");
    image.alt = `${name}, the newest picture with its detections`;
    image.hidden = true;
    this.message = element("p", "message");
    this.age = element("p", "age");
    this.age.title = "since the frame of the newest result was taken";
    this.reasons = element("ul", "reasons");
    screen.append(image, this.message, element("h2", "name", name), this.age, this.reasons);
    this.facts = element("p", "facts");
    this.numbers = element("dl");
    const button = element("button", "open");
    button.type = "button";
    button.setAttribute("aria-label", `Details of ${name}`);
    button.addEventListener("click", () => open(name));
    this.node.append(screen, this.facts, this.numbers, button);
    this.picture = new Picture(image);
    this.visible = true;
    this.history = []; // [performance.now(), frames in, frames out]
    this.level = "ok";
  }

  /** Takes an answer of the server. */
  update(stream, serverTime, answered) {
    this.stream = stream;
    this.serverTime = serverTime;
    this.answered = answered;
    const last = this.history.at(-1);
    if (last && (stream.frames_in < last[1] || stream.frames_out < last[2])) this.history = []; // another stream of that name
    this.history.push([answered, stream.frames_in, stream.frames_out]);
    while (this.history.length > 2 && answered - this.history[1][0] >= RATE_SECONDS * 1000) this.history.shift();
  }

  rates() {
    const [first, last] = [this.history[0], this.history.at(-1)];
    const seconds = (last[0] - first[0]) / 1000;
    return seconds > 0.5 ? [(last[1] - first[1]) / seconds, (last[2] - first[2]) / seconds] : [null, null];
  }

  /** Says what is known now; called several times a second, so that an age grows when nothing comes. */
  tell(now, lost) {
    const stream = this.stream;
    const age = ageOf(stream, this.serverTime, (now - this.answered) / 1000);
    const reasons = reasonsOf(stream, age);
    this.level = worst(reasons);
    this.ageSeconds = age;
    this.why = reasons;
    const [input, output] = lost ? [null, null] : this.rates();
    this.node.dataset.level = this.level;
    this.node.classList.toggle("stale", lost || this.level === "bad");
    write(this.age, duration(age));
    this.age.className = `age ${ageLevel(age)}`;
    fillReasons(this.reasons, reasons);
    write(this.message, this.messageNow(now, age, lost));
    const drops = dropped(stream);
    const facts = [`${rate(output)} fps`];
    if (drops.total) facts.push(`${count(drops.total)} dropped`);
    if (stream.failures) facts.push(`${count(stream.failures)} ${stream.failures === 1 ? "failure" : "failures"}`);
    if (stream.doubtful) facts.push(`${count(stream.doubtful)} doubtful`);
    if (stream.epochs > 1) facts.push(`${count(stream.epochs)} epochs`);
    write(this.facts, facts.join(" · "));
    fill(this.numbers, [
      ["fps in / out", `${rate(input)} / ${rate(output)}`],
      ["dropped", count(drops.total)],
      ["doubtful", count(stream.doubtful)],
      ["epochs", count(stream.epochs)],
      ["sessions", count(stream.sessions)],
      ["failures", count(stream.failures)],
      ...(drops.total ? [["dropped by", drops.text]] : []),
    ]);
  }

  messageNow(now, age, lost) {
    if (this.picture.fetched === null) return "No picture yet";
    if (lost) return `Picture from ${duration(age)} ago`;
    const old = (now - this.picture.fetched) / 1000;
    return this.visible && !document.hidden && old > 5 ? `Picture ${duration(old)} old` : "";
  }

  /** The pairs of the dialog. */
  everything() {
    const s = this.stream;
    const outputs = Object.entries(s.outputs ?? {}).map(([name, o]) => {
      const lost = dropped(o);
      return [`output ${name}`, `${count(o.written)} written, ${count(o.waiting)} waiting, ${count(lost.total)} dropped` +
        `${lost.total ? ` (${lost.text})` : ""}${o.trouble ? `; ${o.trouble}` : ""}`];
    });
    const drops = dropped(s);
    return [
      ["source", String(s.source ?? "–")],
      ...(s.source_error ? [["source failed", String(s.source_error)]] : []),
      ["state", s.error ? `${s.state}: ${s.error}` : String(s.state)],
      ["age", `${duration(this.ageSeconds)} now; half below ${duration(s.age_seconds?.p50 ?? null)}, 99% below ${duration(s.age_seconds?.p99 ?? null)}`],
      ["last result", clockTime(s.last_result_time)],
      ["frames", `${count(s.frames_in)} in, ${count(s.frames_out)} out, ${count(s.waiting)} waiting, ${count(s.inside)} inside`],
      ["dropped", drops.total ? `${count(drops.total)}: ${drops.text}` : "0"],
      ["doubtful, damaged", `${count(s.doubtful)}, ${count(s.damaged)}`],
      ["epochs", count(s.epochs)],
      ["sessions, failures", `${count(s.sessions)}, ${count(s.failures)}`],
      ["lowered", `${count(s.lowered)} steps`],
      ["dials", Object.entries(s.dials ?? {}).map(([k, v]) => `${k} ${v}`).join(", ") || "–"],
      ["memory", bytes(s.nbytes)],
      ...outputs,
    ];
  }
}
