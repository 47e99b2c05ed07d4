"use strict";
// How one value is computed: what goes in, the products, and their sum.

const MOST_MAPS = 6; // whose products are written out; the others are summed up
const MOST_UNITS = 12;
const STEP = 70; // milliseconds from product to product while they are added up

// A number with a true minus sign.
function written(value, digits = 3) {
  const size = Math.abs(value), text = size.toFixed(size >= 1000 ? 0 : size >= 100 ? Math.min(1, digits) : digits);
  return (value < 0 && Number(text) !== 0 ? "−" : "") + text;
}

// A value's place in words: "kernel 3, row 5, column 7".
function placeInWords(layer, {channel, y, x}) {
  if (layer.kind === "Pixels") return `row ${y}, column ${x}`;
  const name = channelInWords(layer, channel);
  return layer.output.length === 1 ? name : `${name}, row ${y}, column ${x}`;
}

// How the value at `place` of layer `number` comes about, as elements. `made` is what every layer has made of `bytes`.
function explained(network, made, bytes, number, place) {
  const layer = network.layers[number], before = number ? network.layers[number - 1] : null;
  const inputs = number ? made[number - 1] : bytes, value = made[number][indexOf(layer.output, place)];
  return EXPLAINED[layer.kind]({network, number, layer, before, place, inputs, value});
}

// Parts of an explanation

// A line of words and numbers.
function line(...parts) {
  const shown = parts.map((part) => (typeof part === "number" ? element("b", {textContent: written(part)}) : part));
  return element("p", {className: "equation"}, ...shown);
}

const sign = (text) => element("span", {className: "sign", textContent: text});
const largestOf = (values) => values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);

// A table of numbers, `columns` in a row, each on its colour. What is null lies beyond the edge, where all is zero.
function numbers(values, columns, largest, label) {
  const cells = values.map((value) => {
    const cell = element("span", {textContent: written(value || 0, 2)});
    cell.className = value === null ? "beyond" : value < 0 ? "negative" : "positive";
    cell.style.setProperty("--strength", Math.abs(value || 0) / (largest || 1));
    return cell;
  });
  const table = element("span", {className: "numbers"}, ...cells);
  table.style.setProperty("--columns", columns);
  table.setAttribute("role", "img");
  table.setAttribute("aria-label", label + ": " + cells.map((cell) => cell.textContent).join(", "));
  return table;
}

// A button that adds up before one's eyes. Each step is [element to light up, or null; words; summand].
function adder(steps, value) {
  const total = element("output", {className: "total"});
  const button = element("button", {type: "button", className: "add", textContent: "Add them up"});
  button.addEventListener("click", () => addUp(steps, total, value));
  return element("p", {className: "adder"}, button, total);
}

function addUp(steps, total, value) {
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let sum = 0, n = 0;
  clearTimeout(addUp.timer);
  for (const [cell] of steps) if (cell) cell.classList.remove("added", "adding");
  const step = () => {
    if (n) steps[n - 1][0]?.classList.remove("adding");
    if (n === steps.length || isStill) {
      total.textContent = "= " + written(value);
      return;
    }
    const [cell, words, summand] = steps[n++];
    cell?.classList.add("adding", "added");
    sum += summand;
    total.textContent = `${words} ${summand < 0 ? "−" : "+"} ${written(Math.abs(summand))} → ${written(sum)}`;
    addUp.timer = setTimeout(step, cell ? STEP : 8 * STEP);
  };
  step();
}

// Convolution: for each map before, what the kernel sees of it, times its weights

function convolutionExplained(context) {
  const {layer, place} = context, bias = layer.bias[place.channel];
  const terms = Array.from({length: layer.input[0]}, (_, channel) => term(context, channel));
  const first = terms.length > MOST_MAPS ? [...terms].sort(largestFirst).slice(0, MOST_MAPS) : terms;
  const others = terms.filter((one) => !first.includes(one)), rest = others.reduce((sum, one) => sum + one.sum, 0);
  const largest = (key) => largestOf(first.flatMap((one) => one[key]));
  const scales = {inputs: largest("inputs"), weights: largest("weights"), products: largest("products")};
  const shown = first.map((one) => termShown(context, one, scales));
  const more = others.length ? [[`${others.length} other maps`, rest]] : [];
  return sumExplained(context, {
    count: layer.input[0] * layer.kernel[0] * layer.kernel[1],
    steps: shown.flatMap(({steps}) => steps),
    list: element("ol", {className: "terms"}, ...shown.map(({item}) => item)),
    more: [...more, ["bias", bias]],
  });
}

const largestFirst = (a, b) => Math.abs(b.sum) - Math.abs(a.sum);

// The sum of products, then the list of them, then what is added without its products: [words, summand].
function sumExplained(context, {count, steps, list, more}) {
  const sum = steps.reduce((a, [, , summand]) => a + summand, 0) + more.reduce((a, [, summand]) => a + summand, 0);
  return [
    ...silentLine(context, sum),
    line(`${count.toLocaleString("en")} products and a bias add up to `, sum),
    adder([...steps, ...more.map(([words, summand]) => [null, words, summand])], sum),
    list,
    ...more.map(([words, summand]) => line(capitalised(words) + ": ", summand)),
    line("Sum: ", sum),
  ];
}

// Says that a value is 0 where it would be `sum`; nothing, where nothing is silenced.
function silentLine({layer, place, value}, sum) {
  const isSilent = value === 0 && Math.abs(sum) > 1e-6;
  return isSilent ? [line(`${capitalised(channelInWords(layer, place.channel))} is silenced: it hands on `, 0)] : [];
}

// Of one channel of the input: what the kernel sees, its weights, the products and their sum.
function term({layer, place, inputs: values}, channel) {
  const [, height, width] = layer.input, [high, wide] = layer.kernel, inputs = [];
  for (let i = 0; i < high; i++)
    for (let j = 0; j < wide; j++) {
      const y = place.y * layer.stride[0] - layer.padding[0] + i, x = place.x * layer.stride[1] - layer.padding[1] + j;
      const isInside = y >= 0 && y < height && x >= 0 && x < width;
      inputs.push(isInside ? values[(channel * height + y) * width + x] : null);
    }
  const start = (place.channel * layer.input[0] + channel) * high * wide;
  const weights = Array.from(layer.weights.subarray(start, start + high * wide));
  const products = inputs.map((input, n) => (input || 0) * weights[n]);
  return {channel, inputs, weights, products, sum: products.reduce((a, b) => a + b, 0)};
}

function termShown({layer, before}, one, scales) {
  const columns = layer.kernel[1], name = layer.input[0] === 1 ? before.name : `map ${one.channel} of ${before.name}`;
  const products = numbers(one.products, columns, scales.products, "Products");
  const item = element("li", {},
    element("p", {className: "quiet small", textContent: `Of ${name}`}),
    element("span", {className: "products"},
      numbers(one.inputs, columns, scales.inputs, "Inputs"), sign("×"),
      numbers(one.weights, columns, scales.weights, "Weights"), sign("="), products),
    line("adds ", one.sum));
  return {item, steps: one.products.map((product, n) => [products.children[n], "", product])};
}

// Linear: the largest products of inputs and weights

function linearExplained(context) {
  const {layer, place, inputs} = context, count = inputs.length, start = place.channel * count;
  const products = Array.from(inputs, (input, n) => ({n, input, weight: layer.weights[start + n], sum: input * layer.weights[start + n]}));
  const first = products.sort(largestFirst).slice(0, MOST_UNITS);
  const rest = products.slice(MOST_UNITS).reduce((sum, one) => sum + one.sum, 0);
  const largest = largestOf(first.map((one) => one.sum));
  const rows = first.map((one) => productShown(context, one, largest));
  const head = ["Input", "Value", "Weight", "Product"].map((text) => element("th", {textContent: text, scope: "col"}));
  const table = element("table", {className: "inputs"}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  const more = count > first.length ? [[`${(count - first.length).toLocaleString("en")} other products`, rest]] : [];
  return sumExplained(context, {
    count, list: table,
    steps: first.map((one, n) => [rows[n], "", one.sum]),
    more: [...more, ["bias", layer.bias[place.channel]]],
  });
}

function productShown({network, number}, one, largest) {
  const cells = [one.input, one.weight, one.sum].map((value) => element("td", {textContent: written(value)}));
  cells[2].className = one.sum < 0 ? "negative" : "positive";
  cells[2].style.setProperty("--strength", Math.abs(one.sum) / (largest || 1));
  const name = element("th", {textContent: inputInWords(network.layers, number, one.n), scope: "row"});
  return element("tr", {}, name, ...cells);
}

// Which value of the layers before input `index` of layer `number` is: through a Flatten, its place in the maps.
function inputInWords(layers, number, index) {
  const before = layers[number - 1];
  if (before.kind !== "Flatten" || before.input.length === 1) return "unit " + index;
  const {channel, y, x} = placeOf(before.input, index);
  return before.input[0] === 1 ? `row ${y}, column ${x}` : `map ${channel}, row ${y}, column ${x}`;
}

// The other kinds

function pixelsExplained({layer, place, inputs, value}) {
  if (layer.resizing) {
    const [down, across] = [layer.resizing[place.y], layer.resizing[place.x]];
    const rows = `${down.first} to ${down.first + down.weights.length - 1}`;
    const columns = `${across.first} to ${across.first + across.weights.length - 1}`;
    return [line(`Resized from 28 × 28 to ${layer.size} × ${layer.size}: a weighted mean of rows ${rows}, columns ${columns} of the image, less ${written(layer.mean)}, by ${written(layer.std)}: `, value)];
  }
  const byte = inputs[place.y * SIDE + place.x];
  return [line(`The pixel is ${byte} of 255: (`, byte / 255, sign("−"), layer.mean, ")", sign("÷"), layer.std, sign("="), value)];
}

function ownInput({layer, place, inputs}) {
  return inputs[indexOf(layer.output, place)];
}

function batchNormExplained(context) {
  const {layer, place} = context, input = ownInput(context), scale = layer.scale[place.channel], shift = layer.shift[place.channel];
  const sum = input * scale + shift;
  return [...silentLine(context, sum), line(input, sign("×"), scale, sign("+"), shift, sign("="), sum)];
}

function layerNormExplained(context) {
  const {layer, place, inputs} = context, [mean, deviation] = moments(layer, inputs);
  const n = indexOf(layer.output, place), sum = ((inputs[n] - mean) / deviation) * layer.scale[n] + layer.shift[n];
  return [
    ...silentLine(context, sum),
    line(`Of all ${inputs.length} values the mean is `, mean, ", the standard deviation ", deviation, "."),
    line("(", inputs[n], sign("−"), mean, ")", sign("÷"), deviation, sign("×"), layer.scale[n], sign("+"), layer.shift[n], sign("="), sum),
  ];
}

function poolExplained({layer, place, inputs, value}) {
  const [, height, width] = layer.input, [high, wide] = layer.kernel, values = [];
  for (let i = 0; i < high; i++)
    for (let j = 0; j < wide; j++)
      values.push(inputs[(place.channel * height + place.y * layer.stride[0] + i) * width + place.x * layer.stride[1] + j]);
  const table = numbers(values, wide, largestOf(values), "Inputs"), isMax = layer.kind === "MaxPool2d";
  if (isMax) table.children[values.indexOf(Math.max(...values))].classList.add("added");
  return [element("span", {className: "products"}, table), line(isMax ? "The largest of them: " : "Their mean: ", value)];
}

function reluExplained(context) {
  const input = ownInput(context), {layer, value} = context;
  if (input >= 0) return [line(input, " is not negative and passes: ", value)];
  if (layer.kind === "ReLU") return [line(input, " is negative and becomes ", value)];
  return [line(input, " is negative: × ", layer.slope, sign("="), value)];
}

function flattenExplained({layer, place, value}) {
  const from = placeOf(layer.input, place.channel);
  return [line(`The value of map ${from.channel}, row ${from.y}, column ${from.x}: `, value)];
}

function passExplained(context) {
  return [line("Passes as it is: ", context.value)];
}

const EXPLAINED = {
  Pixels: pixelsExplained, Conv2d: convolutionExplained, Linear: linearExplained, BatchNorm1d: batchNormExplained,
  BatchNorm2d: batchNormExplained, LayerNorm: layerNormExplained, MaxPool2d: poolExplained, AvgPool2d: poolExplained,
  ReLU: reluExplained, LeakyReLU: reluExplained, Flatten: flattenExplained, Dropout: passExplained,
  Dropout2d: passExplained, Identity: passExplained,
};
