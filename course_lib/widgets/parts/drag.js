// One gesture for all that is dragged or painted: with a mouse, a pen or a finger.

// `start(place, event)` is called where the pointer goes down; it returns the function that hears of
// every move, `move(place, event)`, or nothing where there is nothing to take. `end(place, event)` is
// called when it is let go, however that happens; only "pointerup" was meant. `hover(place, event)`
// hears of all moves, `leave(event)` of the last.
//
// A place is [x, y] in CSS pixels from the corner of `within`, which stands still while `node` may
// move. `focus` (an element or a function that gives one) takes the focus. `buttons` are the mouse's;
// where the right one is among them, it opens no menu.
//
// A finger that swipes up or down over a canvas scrolls the page, as everywhere (`touch-action:
// pan-y`): there a drag begins when the finger goes aside or is lifted, not when it comes down. Another
// finger, or the hand beside a pen, neither moves what is dragged nor drops it.
export function drag(node, { within = node, start, end, hover, leave, focus = node, buttons = [0] }) {
  let held = null; // {id, move} while something is dragged
  let waiting = null; // a finger that may still mean to scroll
  const placeOf = (event) => {
    const { left, top } = within.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };
  const take = (event) => {
    const move = start(placeOf(event), event);
    if (!move) return;
    (typeof focus === "function" ? focus() : focus)?.focus({ preventScroll: true });
    node.setPointerCapture(event.pointerId);
    held = { id: event.pointerId, move };
  };
  const drop = (event) => {
    if (event.pointerId === waiting?.pointerId) waiting = null;
    if (event.pointerId !== held?.id) return;
    held = null;
    end?.(placeOf(event), event);
  };
  node.addEventListener("pointerdown", (event) => {
    if (!buttons.includes(event.button) || held || waiting) return;
    if (event.pointerType === "touch" && getComputedStyle(node).touchAction === "pan-y") {
      waiting = event;
      return;
    }
    take(event);
    if (held) event.preventDefault(); // no text selection
  });
  node.addEventListener("pointermove", (event) => {
    if (event.pointerId === waiting?.pointerId && Math.abs(event.clientX - waiting.clientX) > 4) {
      take(waiting);
      waiting = null;
    }
    const place = placeOf(event);
    hover?.(place, event);
    if (event.pointerId === held?.id) held.move(place, event);
  });
  node.addEventListener("pointerup", (event) => {
    if (event.pointerId === waiting?.pointerId) take(waiting); // a tap
    drop(event);
  });
  for (const name of ["pointercancel", "lostpointercapture"]) node.addEventListener(name, drop);
  if (leave) node.addEventListener("pointerleave", leave);
  if (!buttons.includes(2)) return;
  node.addEventListener("contextmenu", (event) => {
    event.preventDefault();
    event.stopPropagation(); // JupyterLab has a menu of its own
  });
}
