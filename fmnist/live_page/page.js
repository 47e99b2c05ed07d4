"use strict";
// The page: its state, and what is shown of it. One change, one frame.

const network = unpacked(JSON.parse(document.getElementById("network").textContent));
network.images = new Uint8Array(unpackedBytes(network.images));

// Ten probabilities of an image: 784 bytes, row by row, a bright garment on black. Of the whole network, whatever is
// silenced on the page.
window.classify = (bytes) => classifyWith(network, bytes);

const state = {
  bytes: new Uint8Array(SIDE * SIDE), // the image
  about: null, // what the page says of the image that was picked
  silenced: network.layers.map(() => new Set()), // channels of each layer
  at: null, // the value that is explained: {number, place}
  isHeld: false, // whether it stays when the mouse moves on
  whole: null, // what each layer makes of the image
  made: null, // the same with some channels silenced
};
const PAUSE = 150; // milliseconds without a change, before maps are painted that are not in view
let isAsked = false; // whether a frame is on its way

// Lets the next frame compute the network anew if the image or what is silenced has `changed`, and show all of it.
function refresh(changed = true) {
  if (changed) {
    state.made = null;
    clearTimeout(frame.rest);
  }
  if (isAsked) return;
  isAsked = true;
  requestAnimationFrame(frame);
}

function frame() {
  isAsked = false;
  if (!state.made) {
    compute();
    for (const view of views) view.isStale = true;
  }
  drawing.show();
  views.filter(({isVisible, isStale}) => isVisible && isStale).forEach(paintView);
  clearTimeout(frame.rest);
  frame.rest = setTimeout(() => views.filter(({isStale}) => isStale).forEach(paintView), PAUSE);
  showAnswer();
  showValue();
}

function paintView(view) {
  paintLayer(view, state.made[view.number], state.whole[view.number]);
  view.isStale = false;
}

function compute() {
  state.whole = run(network, state.bytes);
  const isWhole = state.silenced.every((silent) => !silent.size);
  state.made = isWhole ? state.whole : runSilenced(network, state.whole, state.silenced);
}

// The answer

const bars = network.classes.map((name) => {
  const bar = {item: element("li"), fill: element("span", {className: "fill"}), mark: element("span", {className: "mark"}),
    figure: element("span", {className: "figure"})};
  bar.item.append(element("span", {className: "name", textContent: name}), element("span", {className: "bar"}, bar.fill, bar.mark), bar.figure);
  return bar;
});
document.getElementById("bars").append(...bars.map((bar) => bar.item));

function showAnswer() {
  const before = softmax(state.whole.at(-1)), now = state.made === state.whole ? before : softmax(state.made.at(-1));
  const best = now.indexOf(Math.max(...now)), isSilent = state.made !== state.whole;
  bars.forEach(({item, fill, mark, figure}, n) => {
    item.classList.toggle("best", n === best);
    fill.style.width = 100 * now[n] + "%";
    mark.hidden = !isSilent || before[n] < 0.005;
    mark.style.left = 100 * before[n] + "%";
    figure.textContent = percent(now[n]);
  });
  setText("likeliest", answerInWords(best, now[best]));
  setText("about", aboutInWords());
  if (isSilent) setText("loss", lossInWords(before, now));
}

function answerInWords(best, probability) {
  const {label} = state.about;
  const isTold = label !== undefined && !drawing.isChanged();
  const verdict = !isTold ? "" : label === best ? " That is true." : " In truth it is: " + network.classes[label] + ".";
  return network.classes[best] + ", " + percent(probability) + "." + verdict;
}

function aboutInWords() {
  return inWords(state.about, network.classes) + (drawing.isChanged() ? " – changed by you." : ".");
}

function lossInWords(before, now) {
  const best = before.indexOf(Math.max(...before)), next = now.indexOf(Math.max(...now));
  const change = pointsInWords(100 * (now[best] - before[best]));
  const other = next === best ? "" : " The answer is now " + network.classes[next] + ".";
  return `${network.classes[best]}: ${percent(before[best])} with all of them, ${percent(now[best])} now: ${change} points.${other}`;
}

// Writes only what is new: a screen reader speaks whatever is written.
function setText(id, text) {
  const target = document.getElementById(id);
  if (target.textContent !== text) target.textContent = text;
}

// Silence

function canBeSilenced(number) {
  return MIXING.includes(network.layers[number].kind) && number !== network.layers.length - 1;
}

function silence(number, channel) {
  if (!canBeSilenced(number)) return; // a key asks for it on any layer
  const silent = state.silenced[number];
  if (!silent.delete(channel)) silent.add(channel);
  showSilenced();
  refresh();
}

function restore() {
  for (const silent of state.silenced) silent.clear();
  showSilenced();
  refresh();
}

function showSilenced() {
  views.forEach((view, n) => markSilent(view, state.silenced[n]));
  const items = network.layers.flatMap((layer, n) => [...state.silenced[n]].map((channel) => {
    const words = layer.name + ", " + channelInWords(layer, channel);
    const button = element("button", {type: "button", textContent: words + " ×", title: "Let it speak again"});
    button.addEventListener("click", () => silence(n, channel));
    return element("li", {}, button);
  }));
  document.getElementById("silenced").hidden = !items.length;
  document.getElementById("silent-list").replaceChildren(...items);
}

// Silences each kernel of layer `number` in turn, and writes under its map what the likeliest class loses, in points.
function rank(number) {
  const view = views[number], whole = state.whole, before = softmax(whole.at(-1));
  const best = before.indexOf(Math.max(...before));
  const losses = view.maps.map((_, channel) => {
    const silenced = network.layers.map((__, n) => (n === number ? new Set([channel]) : new Set()));
    return 100 * (softmax(runSilenced(network, whole, silenced).at(-1))[best] - before[best]);
  });
  const worst = losses.indexOf(Math.min(...losses)), name = network.classes[best];
  view.maps.forEach(({lost}, channel) => {
    lost.textContent = pointsInWords(losses[channel]);
    lost.title = `Points of ${name} without kernel ${channel}`;
    lost.classList.toggle("worst", channel === worst && losses[worst] < -0.05);
  });
  const most = losses[worst] < -0.05 ? `most is lost without kernel ${worst}` : "it rests on no single one of them";
  view.ranked.textContent = `Under each map: the points that ${name} gains or loses without it; ${most}.`;
}

function pointsInWords(points) {
  const text = Math.abs(points).toFixed(1);
  return (text === "0.0" ? "±" : points < 0 ? "−" : "+") + text;
}

function forgetRanks() {
  for (const view of views.filter((view) => view.ranked)) {
    view.ranked.textContent = "";
    for (const {lost} of view.maps) lost.textContent = "";
  }
}

// One value

function point(number, place) {
  if (!state.isHeld) go(number, place);
}

function go(number, place) {
  state.at = {number, place};
  refresh(false);
}

// Holds a value, so that the mouse can leave it; lets go of it when it is asked for again.
function hold(number, place) {
  state.isHeld = !(state.isHeld && isAt(number, place));
  go(number, place);
}

function isAt(number, place) {
  const {output} = network.layers[number];
  return state.at !== null && state.at.number === number && indexOf(output, state.at.place) === indexOf(output, place);
}

const sumBody = document.getElementById("sum-body"), closeUp = makeCloseUp();
const POINT_AT_ONE = document.getElementById("place").textContent;
let explanation = ""; // of what value, and of which image: so that nothing is written anew while it is being added up

function showValue() {
  showLights();
  document.getElementById("sum").classList.toggle("empty", !state.at);
  if (!state.at) return showNoValue();
  const {number, place} = state.at, layer = network.layers[number], key = [number, indexOf(layer.output, place)].join();
  document.getElementById("sum-title").textContent = layer.name;
  setText("place", capitalised(placeInWords(layer, place)) + " = " + written(state.made[number][indexOf(layer.output, place)]));
  if (key !== explanation || state.made !== showValue.made)
    document.getElementById("explained").replaceChildren(...explained(network, state.made, state.bytes, number, place));
  [explanation, showValue.made] = [key, state.made];
  closeUp.show();
  const holdButton = document.getElementById("hold"), silenceButton = document.getElementById("silence");
  holdButton.hidden = false;
  holdButton.setAttribute("aria-pressed", String(state.isHeld));
  silenceButton.hidden = !canBeSilenced(number);
  silenceButton.setAttribute("aria-pressed", String(state.silenced[number].has(place.channel)));
  silenceButton.textContent = "Silence " + channelInWords(layer, place.channel);
}

function showNoValue() {
  for (const id of ["hold", "silence", "close-up"]) document.getElementById(id).hidden = true;
  document.getElementById("explained").replaceChildren();
  document.getElementById("sum-title").textContent = "One value";
  setText("place", POINT_AT_ONE);
  explanation = "";
}

// Lights up what the value sees, in every layer before it and in the image.
function showLights() {
  const fields = state.at ? fieldsOf(network.layers, state.at.number, state.at.place) : {};
  views.forEach((view, n) => light(view, fields[n] || null, Boolean(state.at) && n === state.at.number));
  const sheet = document.getElementById("sheet");
  sheet.classList.toggle("lit", Boolean(fields[-1]));
  if (fields[-1]) setBox(sheet, fields[-1], SIDE, SIDE);
}

// The map of the value in large, on which fingers find single pixels.
function makeCloseUp() {
  const frame = document.getElementById("close-up"), canvas = frame.querySelector("canvas");
  const placeUnder = (event) => {
    const {number, place} = state.at, [y, x] = pixelUnder(canvas, event);
    return placeAt(views[number], pixelOf(views[number], place).map, y, x);
  };
  const move = (event) => {
    const place = state.at && (event.buttons || !state.isHeld) ? placeUnder(event) : null;
    if (place) go(state.at.number, place);
  };
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerdown", move);
  return {
    show() {
      const {number, place} = state.at, view = views[number], pixel = pixelOf(view, place);
      const values = state.made[number], whole = state.whole[number], size = values.length / view.maps.length;
      Object.assign(canvas, {width: view.columns, height: view.rows});
      frame.hidden = view.isVector;
      if (!view.isVector) paintMap(view, canvas, values.subarray(pixel.map * size, (pixel.map + 1) * size), extremes(whole));
      setBox(frame, {rows: [pixel.y, pixel.y + 1], columns: [pixel.x, pixel.x + 1]}, view.rows, view.columns);
    },
  };
}

// Put together

const acts = {point, go, hold, silence, rank};
const views = network.layers.map((_, number) => makeLayer(network, number, acts));
document.getElementById("layers").append(...views.map((view) => view.section));

const drawing = makeDrawing(state.bytes, () => {
  forgetRanks();
  refresh();
});

const watch = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) {
    const view = views.find(({section}) => section === target);
    view.isVisible = isIntersecting;
    if (isIntersecting && view.isStale && state.made) paintView(view);
  }
}, {rootMargin: "400px"});
for (const {section} of views) watch.observe(section);

function press(id, act) {
  document.getElementById(id).addEventListener("click", act);
}
press("restore", restore);
press("hold", () => hold(state.at.number, state.at.place));
press("silence", () => silence(state.at.number, state.at.place.channel));
press("fold", ({target}) => {
  sumBody.hidden = !sumBody.hidden;
  target.setAttribute("aria-expanded", String(!sumBody.hidden));
  target.textContent = sumBody.hidden ? "Unfold" : "Fold";
});
document.addEventListener("keydown", ({key}) => {
  if (key !== "Escape") return;
  Object.assign(state, {at: null, isHeld: false});
  refresh(false);
});

const size = document.getElementById("size");
size.value = innerWidth < 760 ? 44 : 56;
const resize = () => document.documentElement.style.setProperty("--map", size.value + "px");
size.addEventListener("input", resize);
resize();

function showScale() {
  const canvas = document.getElementById("scale");
  paintSigned(canvas, Float32Array.from({length: canvas.width}, (_, n) => n - 50), 50);
}
isDark.addEventListener("change", () => {
  palette = signedPalette();
  showScale();
  refresh();
});
showScale();
makePicks(network, (number) => {
  state.about = network.shown[number];
  drawing.load(imageOf(network, number));
});
