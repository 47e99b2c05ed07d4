"use strict";
// The images to pick from: the one that the page was written for, and test images of the data set.

const percent = (p) => (p > 0.9995 ? "> 99.9" : (100 * p).toFixed(1)) + "\u00a0%";

// Fills the strip of images, and calls `picked` with the number of the one that is chosen.
function makePicks(network, picked) {
  const {shown, classes} = network, strip = document.getElementById("strip"), select = document.getElementById("group");
  const isMistake = (fact) => fact.label !== undefined && fact.label !== fact.predicted;
  const isCorrect = (fact) => fact.label !== undefined && fact.label === fact.predicted;
  const groups = [
    ["all images", () => true],
    ["the network's surest mistakes", isMistake],
    ...classes.map((name, label) => [name + ", recognised", (fact) => isCorrect(fact) && fact.label === label]),
  ].filter(([, belongs]) => shown.some(belongs));
  select.append(...groups.map(([name, belongs], n) => new Option(name + " (" + shown.filter(belongs).length + ")", n)));

  const tiles = shown.map((fact, number) => {
    const button = element("button", {type: "button", tabIndex: -1, className: isMistake(fact) ? "mistake" : ""});
    const canvas = element("canvas", {width: SIDE, height: SIDE});
    paintGrey(canvas, imageOf(network, number), 0, 255);
    button.setAttribute("aria-label", inWords(fact, classes));
    button.title = inWords(fact, classes);
    button.append(canvas);
    button.addEventListener("click", () => choose(number));
    const item = element("li");
    item.append(button);
    return item;
  });

  function fill() {
    const [, belongs] = groups[Number(select.value)];
    strip.replaceChildren(...tiles.filter((_, number) => belongs(shown[number])));
    strip.scrollLeft = 0;
    setTabStop(strip.querySelector('[aria-pressed="true"]') || strip.querySelector("button"));
  }

  function setTabStop(button) {
    for (const tile of tiles) tile.firstChild.tabIndex = tile.firstChild === button ? 0 : -1;
  }

  function choose(number) {
    tiles.forEach((tile, n) => tile.firstChild.setAttribute("aria-pressed", String(n === number)));
    setTabStop(tiles[number].firstChild);
    picked(number);
  }

  select.addEventListener("change", fill);
  strip.addEventListener("keydown", (event) => {
    const items = [...strip.children], here = items.indexOf(event.target.closest("li"));
    const next = {ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: items.length - 1}[event.key];
    if (next === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const button = items[Math.min(items.length - 1, Math.max(0, next))].firstChild;
    setTabStop(button);
    button.focus();
  });
  document.getElementById("underlined").hidden = !shown.some(isMistake);
  fill();
  choose(0);
}

function imageOf(network, number) {
  return network.images.subarray(number * SIDE * SIDE, (number + 1) * SIDE * SIDE);
}

// "Test image 17: Shirt, taken for Coat with 98.0 %"
function inWords(fact, classes) {
  if (fact.label === undefined) return fact.is_photograph ? "Photograph " + fact.title : capitalised(fact.title);
  const verdict = fact.label === fact.predicted ? "recognised" : "taken for " + classes[fact.predicted];
  return "Test image " + fact.index + ": " + classes[fact.label] + ", " + verdict + " with " + percent(fact.probability);
}

function capitalised(words) {
  return words[0].toUpperCase() + words.slice(1);
}
