// What the numbers of a stream mean, in words and in three levels. Nothing here touches the page.

const LATE_SECONDS = 2;
const STALE_SECONDS = 10;
const OVERDUE_SECONDS = 1.5;

const TROUBLES = {
  source_down: ["bad", "camera down"],
  source_stuck: ["warn", "reader stuck"],
  refused: ["warn", "frames refused"],
  failing: ["bad", "detection fails"],
  sink_failing: ["warn", "output fails"],
  sink_full: ["warn", "output too slow"],
};

const FLAGS = {
  dark: "near black, or the lens is covered",
  frozen: "frames come, and all show the same",
  shifted: "the camera looks elsewhere than it did",
};

export const END_REASONS = {
  ended: "came to its end",
  source: "source failed",
  failed: "detection failed",
  removed: "removed",
  idle: "no frames",
  deadline: "shut down",
};

const RANK = { ok: 0, warn: 1, bad: 2 };

export function worst(reasons) {
  return reasons.reduce((level, one) => (RANK[one.level] > RANK[level] ? one.level : level), "ok");
}

/**
 * Seconds since the frame of the newest result was taken; null where there was no result. While answers come in time
 * it is that of the answer, which stands still until the next; once one is overdue it grows.
 */
export function ageOf(stream, serverTime, sinceAnswer) {
  if (!Number.isFinite(stream.last_result_time)) return null;
  const latency = Number.isFinite(stream.age_seconds?.last) ? stream.age_seconds.last : 0;
  return Math.max(0, serverTime - stream.last_result_time) + latency + (sinceAnswer > OVERDUE_SECONDS ? sinceAnswer : 0);
}

export function ageLevel(age) {
  if (age !== null && age > STALE_SECONDS) return "bad";
  return age === null || age > LATE_SECONDS ? "warn" : "ok";
}

/** Everything that is not as it should be: [{level, text, title}], the worst first. */
export function reasonsOf(stream, age) {
  const found = [];
  const say = (level, text, title = "") => found.push({ level, text, title });
  for (const kind of list(stream.trouble)) {
    say(...(TROUBLES[kind] ?? ["warn", String(kind)]), kind === "source_down" ? String(stream.source_error ?? "") : "");
  }
  const level = ageLevel(age);
  if (age === null) say(level, "no result yet");
  else if (level === "bad") say(level, `no result for ${duration(age)}`);
  else if (level === "warn") say(level, "late");
  for (const flag of list(stream.flags)) say("warn", String(flag), FLAGS[flag] ?? "");
  for (const [name, output] of Object.entries(stream.outputs ?? {})) {
    if (output?.trouble) say("warn", `${name}: ${output.trouble}`);
  }
  if (stream.lowered > 0) say("warn", `lowered ${stream.lowered}`, "steps by which a latency budget lowered its settings");
  if (stream.state && stream.state !== "running") say("warn", stream.state);
  return found.sort((a, b) => RANK[b.level] - RANK[a.level]);
}

export function isFlag(text) {
  return Object.hasOwn(FLAGS, text);
}

export function list(value) {
  return Array.isArray(value) ? value : [];
}

export function dropped(stream) {
  const parts = Object.entries(stream.dropped ?? {}).filter(([, n]) => n > 0);
  const total = parts.reduce((sum, [, n]) => sum + n, 0);
  return { total, text: parts.map(([reason, n]) => `${reason} ${count(n)}`).join(", ") };
}

export function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "–";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 5940) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export function count(n) {
  return Number.isFinite(n) ? n.toLocaleString("en") : "–";
}

export function bytes(n) {
  if (!Number.isFinite(n)) return "–";
  return n < 2 ** 30 ? `${Math.round(n / 2 ** 20)} MiB` : `${(n / 2 ** 30).toFixed(1)} GiB`;
}

export function rate(perSecond) {
  return perSecond === null ? "–" : perSecond.toFixed(perSecond < 9.95 ? 1 : 0);
}

export function clockTime(unixSeconds) {
  return Number.isFinite(unixSeconds) ? new Date(unixSeconds * 1000).toLocaleString() : "never";
}
