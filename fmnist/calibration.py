"""Whether a network is as often right as its probabilities say, and one temperature that mends most of what is wrong.

After Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017): the expected calibration
error of section 2, and the temperature scaling of section 4.2.
"""

import numpy as np
from scipy.special import log_softmax

from fmnist.metrics import Calibration, Reliability

BINS = 15  # of equal width, as in the paper
CERTAIN = 0.7  # probability of an answer below which one had better look at the others
COLDEST, HOTTEST = 0.05, 20.0  # the temperatures that are tried
LEAST = np.log(np.finfo(np.float32).tiny)  # stands for the logarithm of a probability that has come out as 0


def calibrate(
    validation: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], bins: int = BINS
) -> Calibration:
    """Fit a temperature on the `validation` images alone, and measure the calibration of the `test` images by it.

    Each of the two is log-probabilities [N, 10] and true classes, int [N].
    """
    temperature = fit_temperature(*validation)
    scores, labels = test
    after = at_temperature(scores, temperature)
    measured = reliability(np.exp(scores), labels, bins), reliability(np.exp(after), labels, bins)
    return {
        "temperature": temperature,
        "validation_images": len(validation[1]),
        "ece": expected_calibration_error(measured[0]),
        "ece_after": expected_calibration_error(measured[1]),
        "nll": negative_log_likelihood(scores, labels),
        "nll_after": negative_log_likelihood(after, labels),
        "bins": measured[0],
        "bins_after": measured[1],
    }


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature, 0.05 to 20, at which log-probabilities [N, 10] are the likeliest for the `labels`."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(at_temperature(scores, np.exp(log_temperature)), labels)

    # Convex in 1 / temperature, so it has one minimum on any scale; at an end where all images are correct, or chance.
    fitted = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(fitted.x))


def at_temperature(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Return log-probabilities [N, 10], those of softmax(scores / temperature). No predicted class changes."""
    return log_softmax(np.maximum(scores.astype(np.float64), LEAST) / temperature, axis=1)


def negative_log_likelihood(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy of log-probabilities [N, 10]; one of -∞ counts as -87.3, the least in float32."""
    return float(-np.maximum(scores[np.arange(len(labels)), labels], LEAST).mean(dtype=np.float64))


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Return mean confidence and accuracy of the images in each bin of confidence; a bin without images is left out.

    The confidence is the probability of the predicted class: the highest of each row of `probabilities` [N, 10].
    """
    from sklearn.calibration import calibration_curve

    confidence = np.clip(probabilities.max(axis=1).astype(np.float64), 0, 1)  # a sum of exponentials may exceed 1
    correct = probabilities.argmax(axis=1) == labels
    accuracy, mean_confidence = calibration_curve(correct, confidence, pos_label=True, n_bins=bins)
    # The same bins, each without its lower edge: calibration_curve tells no counts.
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence))
    return {
        "confidence": mean_confidence.tolist(),
        "accuracy": accuracy.tolist(),
        "count": counts[counts > 0].tolist(),
    }


def expected_calibration_error(bins: Reliability) -> float:
    """Return how far accuracy and mean confidence lie apart, averaged over the images of all bins."""
    gaps = np.abs(np.subtract(bins["accuracy"], bins["confidence"]))
    return float(np.average(gaps, weights=bins["count"]))


def doubt(probabilities: np.ndarray, temperature: float | None) -> str | None:
    """Return that the likeliest class, of float [10], is uncertain, in words; None if it is not.

    It goes by the probabilities at the `temperature` that calibrates them, or as they are where there is none.
    """
    calibrated = np.exp(at_temperature(np.log(np.maximum(probabilities, 1e-30))[None], temperature or 1.0)[0])
    if calibrated.max() >= CERTAIN:
        return None
    if temperature:
        return f"uncertain: of such answers about {calibrated.max():.0%} are correct"
    return f"uncertain: {calibrated.max():.0%}, which no validation images (--validation) have calibrated"
