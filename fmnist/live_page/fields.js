"use strict";
// What a value sees: the places in the layer before, and on and on down to the image, that it is computed from.
// A field is {channels: [first, end], rows: [first, end], columns: [first, end]}, `end` excluded. A vector has a channel
// for each unit.

function everything(shape) {
  const [channels, height = 1, width = 1] = shape;
  return {channels: [0, channels], rows: [0, height], columns: [0, width]};
}

function single({channel, y, x}) {
  return {channels: [channel, channel + 1], rows: [y, y + 1], columns: [x, x + 1]};
}

// What the values of `field`, in the layer's output, are computed from, in its input.
function seen(layer, field) {
  switch (layer.kind) {
    case "Pixels": return pixelsSeen(layer, field);
    case "Conv2d": return {...windowSeen(layer, field, layer.padding), channels: [0, layer.input[0]]};
    case "MaxPool2d":
    case "AvgPool2d": return windowSeen(layer, field, [0, 0]);
    case "Flatten": return unflattened(layer, field);
    case "Linear":
    case "LayerNorm": return everything(layer.input);
    default: return field; // value by value
  }
}

function windowSeen(layer, {channels, rows, columns}, padding) {
  const span = ([first, end], axis) => [
    Math.max(0, first * layer.stride[axis] - padding[axis]),
    Math.min(layer.input[axis + 1], (end - 1) * layer.stride[axis] - padding[axis] + layer.kernel[axis]),
  ];
  return {channels, rows: span(rows, 0), columns: span(columns, 1)};
}

function pixelsSeen({resizing}, field) {
  if (!resizing) return field;
  const span = ([first, end]) => [resizing[first].first, resizing[end - 1].first + resizing[end - 1].weights.length];
  return {channels: [0, 1], rows: span(field.rows), columns: span(field.columns)};
}

function unflattened(layer, {channels: [first, end]}) {
  if (layer.input.length === 1) return {...everything(layer.input), channels: [first, end]};
  if (end - first > 1) return everything(layer.input);
  return single(placeOf(layer.input, first));
}

// Channel, row and column of the value number `index`.
function placeOf([, height = 1, width = 1], index) {
  const inMap = index % (height * width);
  return {channel: Math.floor(index / (height * width)), y: Math.floor(inMap / width), x: inMap % width};
}

function indexOf([, height = 1, width = 1], {channel, y, x}) {
  return (channel * height + y) * width + x;
}

// The fields of a value of layer `number` in all that comes before it: fields[n] in the output of layer n, and
// fields[-1] in the image.
function fieldsOf(layers, number, place) {
  const fields = {[number]: single(place)};
  for (let n = number; n >= 0; n--) fields[n - 1] = seen(layers[n], fields[n]);
  return fields;
}
