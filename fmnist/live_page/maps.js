"use strict";
// Every layer's maps: painted, pointed at, lit up and silenced.

const VECTOR_COLUMNS = [[10, 10], [256, 32], [Infinity, 64]]; // units at most, and how many of them stand in a row
const VECTOR_CELLS = [[10, 28], [256, 14], [Infinity, 8]]; // units at most, and the size of each, in CSS pixels
const NOTES = {
  Pixels: "Makes numbers of the image's bytes as they were when the network was trained.",
  Conv2d: "Each kernel slides over all maps before it and makes a map of its own: at each place, the sum of products of its weights with what it sees there.",
  Linear: "Each unit is a sum of products of its weights with all values before it.",
  BatchNorm1d: "Multiplies each value by a number and adds another, so that it keeps a steady range.",
  BatchNorm2d: "Multiplies each map by a number and adds another, so that it keeps a steady range.",
  LayerNorm: "Takes off the values' mean, divides by their deviation; then multiplies and adds.",
  MaxPool2d: "Keeps the largest value of each square: a smaller map of what is strongest.",
  AvgPool2d: "Keeps the mean of each square: a smaller, smoother map.",
  ReLU: "Lets positive values pass and makes the negative ones zero.",
  LeakyReLU: "Lets positive values pass and weakens the negative ones.",
  Flatten: "Writes all maps as one row of numbers.",
  Dropout: "Dropped values at random in training; now it lets all pass.",
  Dropout2d: "Dropped maps at random in training; now it lets all pass.",
  Identity: "Lets all pass.",
};

function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

// Painting

const isDark = matchMedia("(prefers-color-scheme: dark)");
let palette = signedPalette();

// 511 colours, from -255 (blue) over 0 (the page) to 255 (red), as ImageData has them on all processors of today.
function signedPalette() {
  const [low, zero, high] = isDark.matches
    ? [[92, 176, 245], [24, 27, 31], [255, 122, 74]]
    : [[0, 92, 168], [255, 255, 255], [190, 40, 20]];
  return Uint32Array.from({length: 511}, (_, n) => {
    const strength = Math.abs(n - 255) / 255, end = n < 255 ? low : high;
    const [r, g, b] = zero.map((from, i) => Math.round(from + strength * (end[i] - from)));
    return (255 << 24) | (b << 16) | (g << 8) | r;
  });
}

const colourOf = (value, largest) => palette[255 + Math.round(255 * Math.min(1, Math.max(-1, value / largest)))];

function paintSigned(canvas, values, largest) {
  paint(canvas, values.length, (n) => colourOf(values[n], largest));
}

function paintGrey(canvas, values, low, high) {
  paint(canvas, values.length, (n) => {
    const grey = Math.round((255 * (values[n] - low)) / (high - low || 1));
    return (255 << 24) | (grey << 16) | (grey << 8) | grey;
  });
}

function paint(canvas, count, colour) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const places = new Uint32Array(image.data.buffer);
  for (let n = 0; n < count; n++) places[n] = colour(n);
  context.putImageData(image, 0, 0);
}

// A layer on the page

// Builds the section of layer `number`. `acts` are {point(number, place), for what the mouse is over, go(number, place),
// for what is chosen, hold(number, place), silence(number, channel), rank(number)}.
function makeLayer(network, number, acts) {
  const layer = network.layers[number], isVector = layer.output.length === 1;
  const [channels, height = 1, width = 1] = layer.output;
  const columns = isVector ? VECTOR_COLUMNS.find(([most]) => channels <= most)[1] : width;
  const view = {
    layer, number, isVector, columns, rows: isVector ? Math.ceil(channels / columns) : height,
    isVisible: false, isStale: true, cursor: {channel: 0, y: height >> 1, x: width >> 1},
  };
  view.maps = Array.from({length: isVector ? 1 : channels}, (_, n) => makeMap(view, n, acts));
  const head = element("div", {className: "line"}, element("h3", {textContent: layer.name}),
    element("span", {className: "shape", textContent: shapeInWords(layer)}));
  if (layer.kind === "Conv2d" && channels > 1) {
    view.rank = element("button", {type: "button", textContent: "Silence each in turn"});
    view.rank.addEventListener("click", () => acts.rank(number));
    head.append(view.rank);
    view.ranked = element("p", {className: "small"});
    view.ranked.setAttribute("aria-live", "polite");
  }
  view.list = element("div", {className: "maps"}, ...view.maps.map((map) => map.figure));
  view.section = element("section", {className: "layer" + (isVector ? " vector" : "")}, head,
    element("p", {className: "quiet small", textContent: NOTES[layer.kind]}), ...(view.ranked ? [view.ranked] : []), view.list);
  view.section.setAttribute("aria-label", layer.name);
  listen(view, acts);
  setTabStop(view, 0);
  return view;
}

function sizeInWords([down, across]) {
  return down === across ? String(down) : down + "×" + across;
}

function shapeInWords(layer) {
  const kernel = layer.kernel ? " " + layer.kernel.join("×") : "";
  const more = [
    layer.stride && layer.kind === "Conv2d" && layer.stride.some((step) => step > 1) && "stride " + sizeInWords(layer.stride),
    layer.padding && layer.padding.some((pad) => pad) && "padding " + sizeInWords(layer.padding),
    layer.slope !== undefined && "slope " + layer.slope,
  ].filter(Boolean).map((words) => ", " + words).join("");
  const output = layer.output.length === 1 ? layer.output[0] + " values" : layer.output.join(" × ");
  return layer.kind + kernel + more + " → " + output;
}

function channelInWords(layer, channel) {
  if (layer.kind === "Conv2d") return "kernel " + channel;
  return (layer.output.length === 1 ? "unit " : "map ") + channel;
}

function makeMap(view, number, acts) {
  const {layer, isVector} = view;
  const canvas = element("canvas", {width: view.columns, height: view.rows});
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", isVector
    ? layer.name + ", " + layer.output[0] + " values" : layer.name + ", " + channelInWords(layer, number));
  const frame = element("span", {className: "frame"}, canvas);
  const figure = element("figure", {className: "map"}, frame);
  figure.dataset.channel = number;
  if (isVector) {
    const cell = VECTOR_CELLS.find(([most]) => layer.output[0] <= most)[1];
    figure.style.setProperty("--width", cell * view.columns + "px");
  }
  const map = {figure, canvas, frame};
  if (layer.kind === "Conv2d") {
    map.toggle = element("button", {type: "button", className: "silence", tabIndex: -1},
      element("span", {textContent: number}), element("span", {className: "switch"}));
    map.toggle.setAttribute("aria-pressed", "false");
    map.toggle.setAttribute("aria-label", "Silence kernel " + number + " of " + layer.name);
    map.toggle.title = "Silence kernel " + number;
    map.toggle.addEventListener("click", () => acts.silence(view.number, number));
    map.lost = element("figcaption", {className: "lost"});
    figure.append(map.toggle, map.lost);
  } else if (!isVector && layer.output[0] > 1) figure.append(element("figcaption", {textContent: number}));
  return map;
}

// Where a place of the layer stands on the page: which map, and which of its pixels.
function pixelOf(view, {channel, y, x}) {
  if (!view.isVector) return {map: channel, y, x};
  return {map: 0, y: Math.floor(channel / view.columns), x: channel % view.columns};
}

// And back; null where the last row of a vector has no unit.
function placeAt(view, map, y, x) {
  if (y < 0 || x < 0 || y >= view.rows || x >= view.columns) return null;
  if (!view.isVector) return {channel: map, y, x};
  const channel = y * view.columns + x;
  return channel < view.layer.output[0] ? {channel, y: 0, x: 0} : null;
}

function setTabStop(view, map) {
  view.maps.forEach(({canvas, toggle}, n) => {
    canvas.tabIndex = n === map ? 0 : -1;
    if (toggle) toggle.tabIndex = canvas.tabIndex;
  });
}

function listen(view, acts) {
  const mapOf = (target) => view.maps.findIndex(({canvas}) => canvas === target);
  const go = (place) => {
    view.cursor = place;
    setTabStop(view, pixelOf(view, place).map);
    acts.go(view.number, place);
  };
  const under = (event) => {
    const map = mapOf(event.target);
    return map < 0 ? null : placeAt(view, map, ...pixelUnder(view.maps[map].canvas, event));
  };
  view.list.addEventListener("pointermove", (event) => {
    const place = event.pointerType === "touch" ? null : under(event);
    if (place) acts.point(view.number, place);
  });
  view.list.addEventListener("click", (event) => {
    const place = under(event);
    if (!place) return;
    view.cursor = place;
    setTabStop(view, pixelOf(view, place).map);
    acts.hold(view.number, place);
  });
  view.list.addEventListener("focusin", (event) => {
    const map = mapOf(event.target);
    if (map >= 0 && event.target.matches(":focus-visible"))
      go(view.isVector ? view.cursor : {...view.cursor, channel: map});
  });
  view.list.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || mapOf(event.target) < 0) return;
    if (!pressed(view, event.key, go, acts)) return;
    event.preventDefault();
    view.maps[pixelOf(view, view.cursor).map].canvas.focus();
  });
}

function pixelUnder(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [
    Math.floor(((event.clientY - box.top) / box.height) * canvas.height),
    Math.floor(((event.clientX - box.left) / box.width) * canvas.width),
  ];
}

// Does what a key asks of the map in focus; returns whether it asks for anything.
function pressed(view, key, go, acts) {
  const {map, y, x} = pixelOf(view, view.cursor), last = view.maps.length - 1;
  const maps = {PageUp: map - 1, PageDown: map + 1, Home: 0, End: last};
  if (key in MOVES) go(placeAt(view, map, y + MOVES[key][1], x + MOVES[key][0]) || view.cursor);
  else if (key in maps && !view.isVector) go({...view.cursor, channel: Math.min(last, Math.max(0, maps[key]))});
  else if (key === "Enter") acts.hold(view.number, view.cursor);
  else if (key === "s" || key === "S") acts.silence(view.number, view.cursor.channel);
  else return false;
  return true;
}

// Painting and lighting

// `whole` are the layer's values with nothing silenced: they set the scale, so that silence dims no other map.
function paintLayer(view, values, whole) {
  const size = values.length / view.maps.length;
  const scale = extremes(whole);
  view.maps.forEach(({canvas}, n) => paintMap(view, canvas, values.subarray(n * size, (n + 1) * size), scale));
}

function paintMap({layer}, canvas, values, [low, high]) {
  if (layer.kind === "Pixels") paintGrey(canvas, values, low, high);
  else paintSigned(canvas, values, Math.max(-low, high) || 1);
}

function extremes(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function markSilent(view, silent) {
  view.maps.forEach(({figure, toggle}, channel) => {
    figure.classList.toggle("silent", !view.isVector && silent.has(channel));
    if (toggle) toggle.setAttribute("aria-pressed", String(silent.has(channel)));
  });
}

// Lights up a field of the layer, or puts the light out where it is null.
function light(view, field, isPointed) {
  const {section, layer} = view;
  section.classList.toggle("pointed", Boolean(field) && isPointed);
  for (const lit of section.querySelectorAll(".map.lit")) lit.classList.remove("lit");
  section.classList.toggle("lit", Boolean(field));
  if (!field) return;
  const [first, end] = field.channels, isWhole = end - first === layer.output[0];
  let box = {rows: field.rows, columns: field.columns};
  if (view.isVector) {
    const {y, x} = pixelOf(view, {channel: first});
    box = isWhole ? {rows: [0, view.rows], columns: [0, view.columns]} : {rows: [y, y + 1], columns: [x, x + 1]};
  }
  setBox(section, box, view.rows, view.columns);
  const lit = view.isVector ? view.maps : view.maps.slice(first, end);
  for (const {figure} of lit) figure.classList.add("lit");
}

function setBox(target, {rows, columns}, height, width) {
  const sides = {top: rows[0] / height, left: columns[0] / width,
    bottom: 1 - rows[1] / height, right: 1 - columns[1] / width};
  for (const [side, fraction] of Object.entries(sides)) target.style.setProperty("--" + side, 100 * fraction + "%");
}
