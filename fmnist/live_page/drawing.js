"use strict";
// The image, on which one draws, erases, and which one shifts.

const MOVES = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const PEN_MOVES = {a: [-1, 0], d: [1, 0], w: [0, -1], s: [0, 1]};
const MOST_STEPS_BACK = 100;

// Lets the user change `bytes`, Uint8Array [784], and calls `changed` each time. Returns {show, load, isChanged}.
function makeDrawing(bytes, changed) {
  const canvas = document.getElementById("drawing"), sheet = document.getElementById("sheet");
  const pen = {x: 14, y: 14}, before = [];
  let original = bytes.slice(), last = null; // where the pointer was, while it is down, and whether it has changed anything

  const tool = () => document.querySelector('input[name="tool"]:checked').value;

  function remember() {
    before.push(bytes.slice());
    if (before.length > MOST_STEPS_BACK) before.shift();
  }

  function replace(content) {
    bytes.set(content);
    changed();
  }

  function shift([right, down]) {
    const made = new Uint8Array(bytes.length);
    for (let y = 0; y < SIDE; y++)
      for (let x = 0; x < SIDE; x++) {
        const fromY = y - down, fromX = x - right;
        if (fromY >= 0 && fromY < SIDE && fromX >= 0 && fromX < SIDE) made[y * SIDE + x] = bytes[fromY * SIDE + fromX];
      }
    replace(made);
  }

  // A round dab of the pen around (x, y), in pixels; its rim is soft.
  function dab(x, y) {
    const radius = Number(document.getElementById("pen").value) / 2, erases = tool() === "erase";
    const ink = erases ? 0 : Number(document.getElementById("brightness").value);
    for (let row = 0; row < SIDE; row++)
      for (let column = 0; column < SIDE; column++) {
        const cover = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(column + 0.5 - x, row + 0.5 - y)));
        const old = bytes[row * SIDE + column], mixed = Math.round(old + cover * (ink - old));
        bytes[row * SIDE + column] = erases ? Math.min(old, mixed) : Math.max(old, mixed);
      }
  }

  function stroke(from, to) {
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(to.x - from.x, to.y - from.y)));
    for (let n = 0; n <= steps; n++) dab(from.x + ((to.x - from.x) * n) / steps, from.y + ((to.y - from.y) * n) / steps);
    changed();
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return {x: ((event.clientX - box.left) / box.width) * SIDE, y: ((event.clientY - box.top) / box.height) * SIDE};
  }

  function drag(event) {
    const here = place(event), moved = [Math.round(here.x - last.x), Math.round(here.y - last.y)];
    const shifts = tool() === "shift";
    if (shifts && !moved[0] && !moved[1]) return;
    if (!last.hasChanged) remember();
    if (shifts) shift(moved);
    else stroke(last, here);
    last = {...(shifts ? {x: last.x + moved[0], y: last.y + moved[1]} : here), hasChanged: true};
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    canvas.focus({preventScroll: true});
    if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
    last = place(event);
    drag(event);
  });
  canvas.addEventListener("pointermove", (event) => last && drag(event));
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
    canvas.addEventListener(end, () => { last = null; });

  canvas.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in MOVES) {
      remember();
      shift(MOVES[key]);
    } else if (key in PEN_MOVES) {
      pen.x = Math.min(SIDE - 1, Math.max(0, pen.x + PEN_MOVES[key][0]));
      pen.y = Math.min(SIDE - 1, Math.max(0, pen.y + PEN_MOVES[key][1]));
      sheet.classList.add("with-pen");
      showPen();
    } else if (key === " ") {
      remember();
      dab(pen.x + 0.5, pen.y + 0.5);
      changed();
    } else if (key === "e") {
      document.querySelector(`input[name="tool"][value="${tool() === "erase" ? "draw" : "erase"}"]`).checked = true;
    } else return;
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => sheet.classList.remove("with-pen"));

  function showPen() {
    sheet.style.setProperty("--pen-x", (100 * pen.x) / SIDE + "%");
    sheet.style.setProperty("--pen-y", (100 * pen.y) / SIDE + "%");
  }

  for (const button of document.querySelectorAll("[data-shift]"))
    button.addEventListener("click", () => {
      remember();
      shift(button.dataset.shift.split(",").map(Number));
    });
  document.getElementById("undo").addEventListener("click", () => before.length && replace(before.pop()));
  for (const [id, content] of [["original", () => original], ["clear", () => new Uint8Array(SIDE * SIDE)]])
    document.getElementById(id).addEventListener("click", () => {
      remember();
      replace(content());
    });

  return {
    show() {
      paintGrey(canvas, bytes, 0, 255);
      document.getElementById("undo").disabled = !before.length;
    },
    load(image) {
      before.length = 0; // steps back would be of another image than the one that is picked and named
      original = image.slice();
      replace(image);
    },
    isChanged: () => bytes.some((byte, n) => byte !== original[n]),
  };
}
