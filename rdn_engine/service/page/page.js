// Asks the server for its streams every second and says what it answered, or that it did not.

import { Picture, Tile, element, fill, fillReasons, write } from "./tile.js";
import { END_REASONS, bytes, clockTime, count, dropped, duration } from "./words.js";

const POLL_MS = 1000;
const TELL_MS = 250;
const TIMEOUT_MS = 5000;
const LOST_MS = 3500; // a poll, and a server that was busy for a moment

const at = (id) => document.getElementById(id);
const tiles = new Map(); // name -> Tile, in the order of the server
let token = sessionStorage.getItem("token") ?? "";
let answered = null; // when the request was sent that was last answered, by performance.now()
let began = performance.now();
let failure = ""; // of the last request
let state = null; // the last answer
let wanting = ""; // what was refused without a token

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  // Relative to the page, which may stand behind a proxy under a path of its own.
  const url = new URL(path.replace(/^\/+/, ""), document.baseURI);
  return fetch(url, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
}

async function poll() {
  const sent = performance.now();
  try {
    const answer = await ask("streams");
    if (answer.status === 401) wantToken("streams");
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    const given = await answer.json();
    if (!Array.isArray(given?.streams)) throw new Error("its answer is not that of this page's server");
    take(given, sent);
  } catch (error) {
    failure = error instanceof TypeError ? "it cannot be reached" : error.name === "TimeoutError" ? "it does not answer" : error.message;
  }
  tell();
  lay(); // below the head line, which may have grown
  if (answered === sent && !document.hidden) refreshPictures();
  setTimeout(poll, Math.max(POLL_MS - (performance.now() - sent), 100));
}

function wantToken(path) {
  wanting = path;
  if (at("token").hidden) {
    at("token").hidden = false;
    at("secret").focus();
  }
}

at("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("secret").value;
  sessionStorage.setItem("token", token);
  at("token").hidden = true;
});

function take(given, sent) {
  state = given;
  answered = sent;
  failure = "";
  if (wanting === "streams") at("token").hidden = true;
  const names = new Set(given.streams.map((stream) => stream.name));
  for (const [name, tile] of tiles) {
    if (!names.has(name)) {
      watched.unobserve(tile.node);
      tile.picture.clear();
      tile.node.remove();
      tiles.delete(name);
    }
  }
  given.streams.forEach((stream, i) => {
    let tile = tiles.get(stream.name);
    if (!tile) {
      tile = new Tile(stream.name, open);
      tiles.set(stream.name, tile);
      watched.observe(tile.node);
    }
    tile.update(stream, given.time, sent);
    if (at("tiles").children[i] !== tile.node) at("tiles").insertBefore(tile.node, at("tiles").children[i] ?? null);
  });
  at("empty").hidden = names.size > 0;
  tellEnded(Array.isArray(given.ended) ? given.ended : []);
}

function tell() {
  const now = performance.now();
  const silent = now - (answered ?? began);
  const lost = silent > LOST_MS;
  for (const tile of tiles.values()) tile.tell(now, lost);
  document.body.classList.toggle("lost", lost);
  at("lost").hidden = !lost;
  if (lost) {
    const why = failure || "it does not answer";
    write(at("lost"), `The server is lost: ${why}. ` +
      (answered === null ? "Trying on." : `Nothing new for ${duration(silent / 1000)}; what stands here is old.`));
  }
  tellHead(lost);
  tellDetails();
}

function tellHead(lost) {
  const poor = [...tiles.values()].filter((tile) => tile.level !== "ok");
  const bad = poor.filter((tile) => tile.level === "bad");
  let level = bad.length ? "bad" : poor.length ? "warn" : "ok";
  let text = poor.length ? `${poor.length} of ${tiles.size} need attention` : tiles.size === 1 ? "1 stream, well" : `${tiles.size} streams, all well`;
  if (poor.length === 1) text = `1 of ${tiles.size} needs attention`;
  if (!tiles.size) text = "No stream";
  if (state && !state.healthy) [level, text] = ["bad", `Unhealthy: ${text}`];
  if (lost) [level, text] = ["bad", "Server lost"];
  if (state || lost) {
    write(at("health"), text);
    at("health").dataset.level = level;
    document.title = `${level === "ok" ? "" : "● "}${text}`;
  }
  const list = at("attention");
  const shown = lost ? [] : [...bad, ...poor.filter((tile) => tile.level === "warn")];
  while (list.children.length > shown.length) list.lastChild.remove();
  while (list.children.length < shown.length) {
    const button = element("button");
    button.type = "button";
    button.addEventListener("click", () => open(button.dataset.stream));
    const item = element("li");
    item.append(button);
    list.append(item);
  }
  shown.forEach((tile, i) => {
    const button = list.children[i].firstChild;
    button.dataset.stream = tile.name;
    button.className = tile.level;
    write(button, tile.name);
  });
  const process = state?.process;
  if (!process) return;
  fill(at("process"), [
    ["workers", count(process.workers)],
    ["memory", bytes(process.resident_bytes)],
    ["admitted", process.byte_budget ? `${bytes(process.admitted_bytes)} of ${bytes(process.byte_budget)}` : bytes(process.admitted_bytes)],
    ["ended", count(process.ended)],
    ...(process.events_lost ? [["events lost", count(process.events_lost)]] : []),
  ]);
}

function tellEnded(ended) {
  at("ended").hidden = ended.length === 0;
  const rows = ended.map((stream) => {
    const row = element("tr");
    const name = element("th", "", stream.name);
    name.scope = "row";
    const why = END_REASONS[stream.end_reason] ?? String(stream.end_reason);
    const drops = dropped(stream);
    row.append(
      name,
      element("td", stream.error ? "error" : "", stream.error ? `${why}: ${stream.error}` : why),
      element("td", "", clockTime(stream.last_result_time)),
      element("td", "number", count(stream.frames_in)),
      element("td", "number", count(stream.frames_out)),
      element("td", "number", drops.total ? `${count(drops.total)} (${drops.text})` : "0"),
    );
    return row;
  });
  at("ended").querySelector("tbody").replaceChildren(...rows);
}

// Tiles

const watched = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const tile = tiles.get(entry.target.dataset.stream);
    if (tile) tile.visible = entry.isIntersecting;
  }
});

function refreshPictures() {
  for (const tile of tiles.values()) if (tile.visible && tile.stream.picture) tile.picture.refresh(ask, sized(tile.stream.picture, tile.node));
  const tile = tiles.get(opened);
  if (tile?.stream.picture) shown.refresh(ask, sized(tile.stream.picture, shown.image.parentElement));
}

function sized(path, node) {
  return `${path}?side=${Math.ceil(node.clientWidth * devicePixelRatio)}`;
}

const GAP = 8; // pixels, as in page.css
const STRIP = 34; // pixels below a picture
const SMALLEST = 150; // pixels: two beside each other on a phone

/** Chooses as many columns as make all tiles as large as fit without scrolling; below a size the page scrolls. */
function lay() {
  const width = at("tiles").clientWidth - 2 * GAP;
  const height = innerHeight - at("tiles").offsetTop - 2 * GAP;
  const number = tiles.size;
  let [best, columns] = [0, 1];
  for (let c = 1; c <= number; c++) {
    const rows = Math.ceil(number / c);
    const across = (width - GAP * (c - 1)) / c;
    const down = (((height - GAP * (rows - 1)) / rows - STRIP) * 16) / 9;
    if (Math.min(across, down) > best) [best, columns] = [Math.min(across, down), c];
  }
  const least = Math.min(width, number > 6 ? SMALLEST : 2 * SMALLEST);
  if (best < least) {
    columns = Math.max(1, Math.min(number, Math.floor((width + GAP) / (least + GAP))));
    best = (width - GAP * (columns - 1)) / columns;
  }
  at("tiles").style.setProperty("--columns", columns);
  at("tiles").style.setProperty("--tile", `${Math.floor(best)}px`);
}

addEventListener("resize", lay);

// The dialog

const dialog = at("details");
const shown = new Picture(dialog.querySelector("img"));
const accept = at("accept");
let opened = null;

accept.firstElementChild.addEventListener("click", async () => {
  const path = tiles.get(opened)?.stream.picture?.replace(/picture\.jpg$/, "accept_view");
  if (!path) return;
  try {
    const answer = await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
    if (answer.status === 401) {
      dialog.close(); // which the form for the token stands behind
      wantToken(path);
    } else write(accept.lastElementChild, answer.ok ? "Accepted" : (await answer.json()).error ?? `The server answered ${answer.status}`);
  } catch {
    write(accept.lastElementChild, "The server did not answer");
  }
});

function open(name) {
  opened = name;
  write(accept.lastElementChild, "");
  shown.clear();
  tellDetails();
  dialog.showModal();
  refreshPictures();
}

dialog.addEventListener("close", () => {
  opened = null;
  shown.clear();
});

function tellDetails() {
  if (opened === null) return;
  const tile = tiles.get(opened);
  if (!tile) {
    dialog.close(); // it has ended, and stands in the table
    return;
  }
  write(at("details-name"), tile.name);
  shown.image.alt = `${tile.name}, the newest picture with its detections`;
  dialog.dataset.level = tile.level;
  dialog.classList.toggle("stale", tile.node.classList.contains("stale"));
  write(dialog.querySelector(".message"), shown.fetched === null ? "No picture yet" : tile.message.textContent);
  fillReasons(dialog.querySelector(".reasons"), tile.why);
  accept.hidden = !(tile.why.some((reason) => reason.text === "shifted") || accept.lastElementChild.textContent);
  fill(dialog.querySelector("dl"), tile.everything());
}

setInterval(tell, TELL_MS);
poll();
