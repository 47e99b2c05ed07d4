"""Imports all that a run imports, some of it within functions; the server of `tests.helpers.child` imports this."""

import importlib
import pkgutil
import threading

import tqdm

import fmnist

LIBRARIES = ("pandas", "scipy.stats", "seaborn", "sklearn.metrics", "torch.utils.flop_counter", "torchvision.datasets")
SCRIPTS = ("cnn", "ffn", "fashionmnist", "kernel_vis")
PACKAGE = (module.name for module in pkgutil.walk_packages(fmnist.__path__, "fmnist."))

for name in (*LIBRARIES, *SCRIPTS, *PACKAGE):
    importlib.import_module(name)
# Its own lock is a semaphore of the system, which a killed child would leave behind.
tqdm.tqdm.set_lock(threading.RLock())
