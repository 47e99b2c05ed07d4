"use strict";
// What each layer computes. Maps are Float32Arrays in PyTorch's order: channel by channel, in each row by row. A layer
// has its shapes, `input` and `output`: [channels, height, width], or [units] once the maps are flattened.

const SIDE = 28; // pixels, of an image

// The network as the page holds it, its numbers unpacked from base64.
function unpacked({layers, ...rest}) {
  return {...rest, layers: layers.map(unpackedLayer)};
}

function unpackedLayer(layer) {
  const made = {...layer};
  for (const key of ["scale", "shift", "scales", "bias"]) if (key in layer) made[key] = new Float32Array(unpackedBytes(layer[key]));
  if ("weights" in layer) made.weights = rescaled(new Int16Array(unpackedBytes(layer.weights)), made.scales);
  if (layer.kind === "Pixels" && layer.size !== SIDE) made.resizing = resizing(SIDE, layer.size);
  return made;
}

function unpackedBytes(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes.buffer;
}

// Weights are whole numbers of 16 bits; those of a kernel have a scale in common.
function rescaled(whole, scales) {
  const weights = new Float32Array(whole.length), each = whole.length / scales.length;
  for (let i = 0; i < whole.length; i++) weights[i] = whole[i] * scales[Math.floor(i / each)];
  return weights;
}

// Layers without weights of kernels

// Bytes, 0 to 255, to numbers of the mean and deviation that the network was trained on; resized, if it was so.
function pixels(layer, bytes) {
  const made = Float32Array.from(bytes, (byte) => (byte / 255 - layer.mean) / layer.std);
  return layer.resizing ? resized(made, layer.resizing) : made;
}

// For each of `to` places, which of `from` pixels it is averaged over, with which weights: bilinear, and wider where the
// image shrinks (antialiasing), as torch.nn.functional.interpolate has it.
function resizing(from, to) {
  const step = from / to, reach = Math.max(step, 1);
  return Array.from({length: to}, (_, place) => {
    const centre = step * (place + 0.5);
    const first = Math.max(0, Math.trunc(centre - reach + 0.5)), end = Math.min(from, Math.trunc(centre + reach + 0.5));
    const weights = Array.from({length: end - first}, (_, n) => Math.max(0, 1 - Math.abs(first + n + 0.5 - centre) / reach));
    const sum = weights.reduce((a, b) => a + b);
    return {first, weights: weights.map((weight) => weight / sum)};
  });
}

function resized(image, places) {
  const size = places.length, made = new Float32Array(size * size);
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      let sum = 0;
      places[y].weights.forEach((down, i) => places[x].weights.forEach((across, j) => {
        sum += down * across * image[(places[y].first + i) * SIDE + places[x].first + j];
      }));
      made[y * size + x] = sum;
    }
  return made;
}

function relu(_layer, values) {
  return values.map((value) => Math.max(0, value));
}

function leakyRelu(layer, values) {
  return values.map((value) => (value < 0 ? layer.slope * value : value));
}

// Each channel by a factor, and shifted: what batch norm comes to after training.
function batchNorm(layer, values) {
  const size = values.length / layer.scale.length;
  return values.map((value, i) => {
    const channel = Math.floor(i / size);
    return value * layer.scale[channel] + layer.shift[channel];
  });
}

// Values less their mean, by their standard deviation; then each by a factor, and shifted.
function layerNorm(layer, values) {
  const [mean, deviation] = moments(layer, values);
  return values.map((value, i) => ((value - mean) / deviation) * layer.scale[i] + layer.shift[i]);
}

function moments(layer, values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return [mean, Math.sqrt(variance + layer.eps)];
}

function maxPool(layer, values) {
  return pooled(layer, values, -Infinity, (largest, value) => Math.max(largest, value));
}

function averagePool(layer, values) {
  const count = layer.kernel[0] * layer.kernel[1];
  return pooled(layer, values, 0, (sum, value) => sum + value / count);
}

function pooled(layer, values, start, join) {
  const [, height, width] = layer.input, [channels, rows, columns] = layer.output;
  const made = new Float32Array(channels * rows * columns);
  let place = 0;
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++) {
        let result = start;
        for (let i = 0; i < layer.kernel[0]; i++) {
          const from = (c * height + y * layer.stride[0] + i) * width + x * layer.stride[1];
          for (let j = 0; j < layer.kernel[1]; j++) result = join(result, values[from + j]);
        }
        made[place++] = result;
      }
  return made;
}

function same(_layer, values) { // dropout, which drops nothing after training; flatten, as the order stays
  return values;
}

// Layers with kernels: sums of products

// The products of `inputs` with each kernel's weights, added up, and its bias. Sum n goes to made[start + n * step].
// Four kernels at a time, so that an input is fetched once for four products.
function addProducts({weights, bias}, inputs, made, start, step) {
  const kernels = bias.length, count = inputs.length;
  let n = 0;
  for (; n + 4 <= kernels; n += 4) {
    const a = n * count, b = a + count, c = b + count, d = c + count;
    let sumA = bias[n], sumB = bias[n + 1], sumC = bias[n + 2], sumD = bias[n + 3];
    for (let i = 0; i < count; i++) {
      const input = inputs[i];
      sumA += weights[a + i] * input;
      sumB += weights[b + i] * input;
      sumC += weights[c + i] * input;
      sumD += weights[d + i] * input;
    }
    made[start + n * step] = sumA;
    made[start + (n + 1) * step] = sumB;
    made[start + (n + 2) * step] = sumC;
    made[start + (n + 3) * step] = sumD;
  }
  for (; n < kernels; n++) {
    let sum = bias[n];
    for (let i = 0; i < count; i++) sum += weights[n * count + i] * inputs[i];
    made[start + n * step] = sum;
  }
}

function linear(layer, values) {
  const made = new Float32Array(layer.output[0]);
  addProducts(layer, values, made, 0, 1);
  return made;
}

// At each place, what the kernels see of all channels is one vector, and the rest is as in a linear layer.
function convolution(layer, values) {
  const [channels] = layer.input, [kernels, rows, columns] = layer.output, [high, wide] = layer.kernel;
  const made = new Float32Array(kernels * rows * columns), patch = new Float32Array(channels * high * wide);
  const maps = padded(layer, values);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++) {
      fillPatch(patch, layer, maps, y * layer.stride[0], x * layer.stride[1]);
      addProducts(layer, patch, made, y * columns + x, rows * columns);
    }
  return made;
}

// What a kernel sees with its upper left corner at row y and column x of the padded maps.
function fillPatch(patch, layer, maps, y, x) {
  const [channels, height, width] = layer.input, [high, wide] = layer.kernel;
  const paddedHeight = height + 2 * layer.padding[0], paddedWidth = width + 2 * layer.padding[1];
  let n = 0;
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < high; i++) {
      const from = (c * paddedHeight + y + i) * paddedWidth + x;
      for (let j = 0; j < wide; j++) patch[n++] = maps[from + j];
    }
}

function padded(layer, values) {
  const [channels, height, width] = layer.input, [down, across] = layer.padding;
  if (!down && !across) return values;
  const paddedHeight = height + 2 * down, paddedWidth = width + 2 * across;
  const made = new Float32Array(channels * paddedHeight * paddedWidth);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < height; y++) {
      const row = (c * height + y) * width;
      made.set(values.subarray(row, row + width), (c * paddedHeight + down + y) * paddedWidth + across);
    }
  return made;
}

// The network

const KINDS = {
  Pixels: pixels, Conv2d: convolution, Linear: linear, BatchNorm1d: batchNorm, BatchNorm2d: batchNorm,
  LayerNorm: layerNorm, MaxPool2d: maxPool, AvgPool2d: averagePool, ReLU: relu, LeakyReLU: leakyRelu, Flatten: same,
  Dropout: same, Dropout2d: same, Identity: same,
};
const MIXING = ["Conv2d", "Linear"]; // layers that make new channels of all those before

// What every layer makes of the image, 784 bytes: one Float32Array a layer.
function run(network, bytes) {
  const made = [];
  for (const layer of network.layers) made.push(KINDS[layer.kind](layer, made.length ? made.at(-1) : bytes));
  return made;
}

// The same with some channels silenced: silenced[n] is the Set of those of layer n. They are zero in that layer and
// wherever they are passed on to, up to the next kernels. `whole` is what `run` made of the image.
function runSilenced(network, whole, silenced) {
  const made = [];
  let mask = null; // of the channels that are silent here; null while nothing is
  network.layers.forEach((layer, n) => {
    if (MIXING.includes(layer.kind)) mask = null;
    if (layer.kind === "Flatten" && mask) mask = spread(mask, layer);
    if (silenced[n].size) mask = Array.from({length: layer.output[0]}, (_, c) => silenced[n].has(c));
    const before = n ? made[n - 1] : null, isChanged = n > 0 && before !== whole[n - 1];
    let values = isChanged ? KINDS[layer.kind](layer, before) : whole[n];
    if (mask) values = withZeros(values, mask);
    made.push(values);
  });
  return made;
}

function spread(mask, layer) {
  const size = layer.output[0] / mask.length;
  return Array.from({length: layer.output[0]}, (_, unit) => mask[Math.floor(unit / size)]);
}

function withZeros(values, mask) {
  const size = values.length / mask.length;
  return values.map((value, i) => (mask[Math.floor(i / size)] ? 0 : value));
}

function softmax(logits) {
  const largest = Math.max(...logits), powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

// Ten probabilities of an image, 784 bytes row by row, bright garment on black.
function classifyWith(network, bytes) {
  if (bytes.length !== SIDE * SIDE) throw new RangeError("an image has " + SIDE * SIDE + " bytes, not " + bytes.length);
  return softmax(run(network, Uint8Array.from(bytes)).at(-1));
}
