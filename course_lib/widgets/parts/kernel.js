// Asking the kernel, one question at a time.

import { element } from "./outline.js";

const PATIENCE = 8000; // milliseconds until a wait is called a long one
const GRACE = 1000; // from "the kernel is done" to our answer, which takes another way

const BUSY = "Still waiting. Is the kernel busy or stopped?";
const GONE = "The kernel does not know this figure any more: run this cell.";

// Questions to the kernel, one at a time: `ask(question)` sends {kind, sequence, ...question()}, or
// waits for the answer that is on its way. Of what is asked meanwhile only the newest goes out;
// question() is called at that moment, and may be null where there is nothing left to ask.
//
// Python answers by the trait `answered` with the same `sequence`. `onAnswer(ours)` hears of every
// answer but stale ones (another is awaited, or a newer question goes out); `tell()` of all changes.
// `late` says in words why one waits for long: the kernel is busy, or was restarted and knows nothing
// of this widget.
export function kernelLine(model, kind, { onAnswer, tell }) {
  const name = Math.random().toString(36).slice(2, 8); // another browser may talk to this kernel
  const line = { waiting: "", late: "" };
  let count = 0;
  let timer = 0;
  let next = null;
  const say = (sequence, words) => {
    if (line.waiting !== sequence) return;
    line.late = words;
    tell();
  };
  const send = (content) => {
    count += 1;
    const sequence = `${name}.${count}`;
    line.waiting = sequence;
    line.late = "";
    clearTimeout(timer);
    timer = setTimeout(() => say(sequence, line.late || BUSY), PATIENCE);
    const gone = () => setTimeout(() => say(sequence, GONE), GRACE);
    // A kernel that is done with our question has answered it, if the widget still lives there.
    const status = ({ content }) => content.execution_state === "idle" && gone();
    try {
      Promise.resolve(model.send({ kind, sequence, ...content }, { iopub: { status } })).catch(gone);
    } catch {
      gone(); // there is nobody to send it to
    }
  };
  line.ask = (question) => {
    if (line.waiting && line.late !== GONE) {
      next = question;
    } else {
      const content = question();
      if (content) send(content);
    }
    tell();
  };
  model.on("change:answered", () => {
    if (line.waiting && model.get("answered").sequence !== line.waiting) return;
    const ours = Boolean(line.waiting);
    clearTimeout(timer);
    Object.assign(line, { waiting: "", late: "" });
    const content = next?.();
    next = null;
    if (content) send(content);
    else onAnswer(ours);
    tell();
  });
  return line;
}

// What is written while an answer is awaited, for `say`.
export function waitWords(line) {
  return [waitSign(), line.late || "Waiting for the kernel \u2026"];
}

// A sign that something is awaited.
export function waitSign() {
  return element("span", { class: "cw-wait", "aria-hidden": "true" });
}
