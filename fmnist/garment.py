"""The garment in a photograph: told from its ground, from shadows on it, and from what else lies there.

What differs from the ground is a garment, a shadow or a thing. A shadow dims all channels by one factor, fades out
without an edge, and reaches from the garment's side to the open ground: so the ground is where a disc can roll in from
the picture's border without meeting an edge, or a colour that no shadow gives. Of what is left, wires are too thin and
things too far away to be part of the garment.

Lengths are in *units*, of which the picture's longest edge has 48: a pixel of the data set's 28 where the garment takes
up 60 % of the picture. A smaller garment has smaller details, and shadows as sharp in proportion pass for edges.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

WORK_EDGE = (
    560  # pixels of the longest edge for which BLUR is meant; of larger photographs it has fewer than twice as many
)
COARSE_EDGE = 260  # pixels of the longest edge at which shadows are sought: five for a unit
UNITS = 48  # of the picture's longest edge
SMALLEST = 28  # pixels; the data set's own images are trimmed, with neither ground nor shadow around the garment

BLUR = 1.5  # pixels of standard deviation; evens out noise and JPEG blocks
CLOSE = 0.05 * 255  # levels; what differs less from the background is background: the figure of the data set's authors
NOISE = 4.0  # what differs less than this many times the median of the border is noise or texture
FAINT = 0.15  # what stands out less than this part of what most of the garment does is a trace of shadow
DIM = 64  # levels; on a darker ground a shadow's factor would be the quotient of two noises

FINE, COARSE = 0.3, 1.2  # units of standard deviation at which the slope of an edge is measured
SHARP = 1.8  # how many times steeper it is at FINE: true of edges whose own blur is below 0.7 units
SLOPE = 0.02  # of the ground's level per unit; what is flatter is no edge
NOISY_SLOPE = 2.0  # nor is what is flatter than this many times the median of the border: grain, noise
LIGHTEST, DARKEST = 0.2, -0.8  # a shadow adds no light (folds add a little), and some always comes from other sides
COLOURED = 0.15  # of the ground's level: the channels of a shadow lie closer together
DISC = 1.6  # units of radius: between parts of the garment's outline that lie closer than twice this, none rolls in

WIRE = 1.0  # pixel of the data set: what is thinner (a hanger's wire) would be lost in it, and is no garment
GAP = 3.0  # such pixels: what lies farther away (a button, another garment) is another thing
WEAK = 0.3  # part of the garment's contrast; a piece that nowhere has as much is a fold of the ground
SPECK = 0.01  # a spot with less than this part of the garment's area is dust


class Found(NamedTuple):
    """A garment in a photograph."""

    mask: np.ndarray  # bool [H, W]; empty where nothing stands out
    things: np.ndarray  # bool [H, W], all that stands out and is no shadow, the garment too
    rival: float  # area of the largest other thing, as a part of the garment's


def find(pixels: np.ndarray, background: np.ndarray) -> Found:
    """Find the garment in RGB `pixels` [H, W, 3] on their `background` [H, W, 3], levels of 0 to 255."""
    difference = pixels - background
    blur = max(difference.shape) / WORK_EDGE * BLUR  # none on a small image
    distance = np.abs(ndimage.gaussian_filter(difference, (blur, blur, 0))).max(axis=2)
    seen = distance > max(CLOSE, NOISE * np.median(distance[border(*distance.shape)]))
    if not seen.any():
        return Found(seen, seen, 0.0)
    is_photograph = max(seen.shape) > SMALLEST
    if is_photograph:
        lit = seen & ~_ground(difference, background, seen)
        seen = lit if lit.any() else seen
        seen = _without_weak(_without_wires(seen), distance)
    seen = seen & (distance > FAINT * np.percentile(distance[seen], 90))
    mask, rival = _largest(seen) if is_photograph else (seen, 0.0)
    return Found(_whole(mask), seen, rival)


def border(height: int, width: int) -> np.ndarray:
    """A mask [H, W] of the outermost 3 % on every side."""
    mask = np.ones((height, width), dtype=bool)
    edge = max(1, round(0.03 * max(height, width)))
    edge = min(edge, (min(height, width) - 1) // 2)
    mask[edge:-edge, edge:-edge] = False
    return mask


def estimate_background(pixels: np.ndarray) -> np.ndarray:
    """Return the background [H, W, 3], a smooth surface per channel.

    A second-order polynomial is fitted to the border. Part of the border may show the garment: the fit starts from the
    colour of the corners, and its tolerance narrows from step to step (graduated non-convexity with a Geman-McClure
    loss), so that shading is followed and the garment is left out.
    """
    height, width, _ = pixels.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).astype(np.float32)
    outermost = border(height, width)
    known, samples = terms[outermost], pixels[outermost]
    corners = np.abs(known[:, 1] * known[:, 2]) > 0.8
    fitted = np.median(samples[corners], axis=0)
    for tolerance, order in ((64, 3), (32, 3), (24, 6), (16, 6), (12, 6), (8, 6)):
        miss = np.abs(samples - fitted).max(axis=1)
        weight = 1 / (1 + (miss / tolerance) ** 2)  # the square root of the loss's weight
        design = known[:, :order] * weight[:, None]
        surface = np.linalg.lstsq(design, samples * weight[:, None], rcond=1e-4)[0]
        fitted = known[:, :order] @ surface
    return (terms @ surface).clip(0, 255)


# Shadows


def _ground(difference: np.ndarray, ground: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the mask [H, W] of the open ground, shadows on it included."""
    factor = max(1, round(max(seen.shape) / COARSE_EDGE))
    change = _reduced(difference / np.maximum(ground, DIM), factor)
    stands_out = _reduced(seen[..., None], factor)[..., 0] > 0.5
    free = ~_edges(change) & (_dimmed(change) | ~stands_out)
    open_ground = _rolled_over(free, ~stands_out, DISC * max(free.shape) / UNITS)
    whole = np.repeat(np.repeat(open_ground, factor, axis=0), factor, axis=1)
    return np.pad(whole, [(0, side - part) for side, part in zip(seen.shape, whole.shape, strict=True)])


def _reduced(values: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of `factor` x `factor` pixels of [H, W, C], but for what is left over below and at the right."""
    height, width = (side // factor for side in values.shape[:2])
    blocks = values[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _edges(change: np.ndarray) -> np.ndarray:
    """Return where [H, W] the relative `change` of the ground's light [H, W, 3] has a sharp edge.

    The slope of a step of light goes with one over its blur: seen through a narrow filter, that of a sharp edge grows,
    and that of a soft one stays.
    """
    fine, coarse = _slope(change, FINE), _slope(change, COARSE)
    return (fine > max(SLOPE, NOISY_SLOPE * np.median(fine[border(*fine.shape)]))) & (fine > SHARP * coarse)


def _slope(change: np.ndarray, blur: float) -> np.ndarray:
    """Return the steepest channel's gradient [H, W], per unit, after a Gaussian of `blur` units."""
    unit = max(change.shape) / UNITS
    channels = np.moveaxis(change, 2, 0)
    return unit * np.max([ndimage.gaussian_gradient_magnitude(one, blur * unit, mode="nearest") for one in channels], 0)


def _dimmed(change: np.ndarray) -> np.ndarray:
    """Return where [H, W] a shadow can have made the relative `change` [H, W, 3]: one factor for all channels."""
    darkest, lightest = change.min(axis=2), change.max(axis=2)
    return (lightest < LIGHTEST) & (darkest > DARKEST) & (lightest - darkest < COLOURED)


def _rolled_over(free: np.ndarray, bare: np.ndarray, radius: float) -> np.ndarray:
    """Return what [H, W] a disc covers that rolls in over what is `free` from where the picture's border is `bare`."""
    room = ndimage.distance_transform_edt(np.pad(free, 1, mode="edge"))[1:-1, 1:-1] > radius
    regions, _ = ndimage.label(room)
    begun = np.unique(regions[border(*free.shape) & bare & room])
    centres = np.isin(regions, begun[begun > 0])
    return _within(centres, radius + 0.5) & free if centres.any() else centres


def _within(mask: np.ndarray, distance: float) -> np.ndarray:
    """Return where [H, W] the mask is at most `distance` pixels away."""
    return ndimage.distance_transform_edt(~mask) <= distance


# Things


def _pixel(mask: np.ndarray) -> float:
    """How long a pixel of the data set is in this picture, if the mask [H, W] is the garment."""
    return max(np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (0, 1)) / SMALLEST


def _without_wires(mask: np.ndarray) -> np.ndarray:
    """Return the mask [H, W] without what is thinner than WIRE; all of it if nothing is thicker."""
    pixel = _pixel(mask)
    thick = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > WIRE * pixel / 2
    return mask & _within(thick, WIRE * pixel) if thick.any() else mask


def _without_weak(mask: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return the mask [H, W] without pieces of which no part stands out, by its `distance` [H, W], as the garment does.

    The garment here is the piece whose distances have the largest sum: large, and unlike the ground.
    """
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    main = 1 + np.argmax(ndimage.sum_labels(distance, pieces, numbers))
    strength = np.percentile(distance[pieces == main], 90)
    strong = np.append(False, ndimage.maximum(distance, pieces, numbers) > WEAK * strength)
    return strong[pieces]


def _largest(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the largest thing of the mask [H, W], and the area of the next as a part of its own.

    Pieces that lie closer together than GAP are one thing: a pair of sandals' straps, say.
    """
    things, _ = ndimage.label(_within(mask, GAP / 2 * _pixel(mask)))
    areas = np.bincount(things[mask])
    *_, rival, largest = np.sort(np.append(areas, 0))
    return mask & (things == areas.argmax()), float(rival / largest)


def _whole(mask: np.ndarray) -> np.ndarray:
    """Return the mask [H, W] without dust, its holes filled."""
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    return ndimage.binary_fill_holes((areas > SPECK * areas.max())[pieces])
