"""Runs inside a peer's environment, which knows nothing of Synclave: fit one generator on a plain table, draw rows.

Prints a JSON line: seconds for fitting and drawing, epochs where there are any, version. Neural peers train for their
default number of epochs, or as many as the time limit allows, by the time that one epoch takes. All times are of the
CPU, over all threads; who exceeds the limit is ended by the kernel (SIGXCPU).
"""

import argparse
import json
import random
import resource
import sys
import time
import warnings
from importlib.metadata import version

import numpy as np
import pandas as pd

DEFAULT_EPOCHS = 300
SHARE_OF_LIMIT = 0.7
"""Part of the time limit for training; the rest is for reading, timing an epoch, and drawing."""


def sdv(kind, train, arguments):
    import sdv.single_table
    from sdv.metadata import Metadata

    columns = {column: {"sdtype": "categorical"} for column in train}
    metadata = Metadata.load_from_dict({"tables": {"patients": {"columns": columns}}, "relationships": []})
    synthesizer = getattr(sdv.single_table, f"{kind}Synthesizer")

    def fit(epochs):
        settings = {} if epochs is None else {"epochs": epochs}
        model = synthesizer(metadata, **settings)
        model.fit({"patients": train})

        def draw(patients):
            drawn = model.sample(patients)
            return drawn["patients"] if isinstance(drawn, dict) else drawn

        return draw

    return timed(fit, arguments, neural=kind != "GaussianCopula")


def smartnoise(kind, train, arguments):
    from snsynth import Synthesizer

    neural = kind.endswith("ctgan")
    if not neural:
        draw_rows_independently()

    def fit(epochs):
        settings = {"epsilon": arguments.epsilon, "delta": arguments.delta}
        if neural:
            settings |= {"epochs": epochs, "verbose": False}
        model = Synthesizer.create(kind, **settings)
        model.fit(train, categorical_columns=list(train.columns), preprocessor_eps=0.0)
        return model.sample

    return timed(fit, arguments, neural)


def draw_rows_independently():
    """Let MST and AIM draw by mbi's own method "sample" in place of its default "round".

    In mbi 1.1.0, the only version that smartnoise-synth 1.0.8 takes, "round" cuts the values of a column by the order
    of the rows: columns that hang on the same parent rise and fall together though the model has them independent
    (correlations of .2 to .4 out of nothing). That would measure a slip, not the method.
    """
    from mbi import MarkovRandomField

    original = MarkovRandomField.synthetic_data
    MarkovRandomField.synthetic_data = lambda self, rows=None, method=None: original(self, rows, "sample")


def dpmm(kind, train, arguments):
    from dpmm import pipelines

    pipeline = {"mst": "MSTPipeline", "aim": "AIMPipeline", "privbayes": "PrivBayesPipeline"}[kind]

    def fit(epochs):
        model = getattr(pipelines, pipeline)(
            epsilon=arguments.epsilon, delta=arguments.delta, disable_processing=True, n_jobs=1
        )
        model.fit(train, domain={c: int(train[c].max()) + 1 for c in train}, random_state=arguments.seed)
        return lambda patients: model.generate(n_records=patients, random_state=arguments.seed)

    return timed(fit, arguments, neural=False)


def timed(fit, arguments, neural):
    """The drawing function, seconds of the fit, epochs."""
    epochs = None
    if neural:
        begun = time.process_time()
        fit(1)
        one = time.process_time() - begun
        begun = time.process_time()
        fit(2)
        epoch = max(time.process_time() - begun - one, 0.1 * one, 1e-3)
        left = SHARE_OF_LIMIT * arguments.time_limit - 2 * one - epoch - one
        epochs = int(min(DEFAULT_EPOCHS, max(1, left / epoch)))
        print(f"{one:.1f} s for one epoch, {epoch:.1f} s for one more: {epochs} epochs", file=sys.stderr, flush=True)
    begun = time.process_time()
    draw = fit(epochs)
    return draw, time.process_time() - begun, epochs


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("name", str), ("train", str), ("out", str), ("patients", int), ("delta", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--epsilon", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time-limit", type=float, default=600.0)
    arguments = parser.parse_args()
    limit = int(arguments.time_limit)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 10))
    warnings.filterwarnings("ignore")
    random.seed(arguments.seed)
    np.random.seed(arguments.seed)
    family, _, kind = arguments.name.partition("-")
    if family != "dpmm":
        import torch

        torch.manual_seed(arguments.seed)
    train = pd.read_parquet(arguments.train)
    makers = {"sdv": sdv, "smartnoise": smartnoise, "dpmm": dpmm}
    kinds = {"gaussian-copula": "GaussianCopula", "ctgan": "CTGAN", "tvae": "TVAE"}
    draw, fit_s, epochs = makers[family](kinds.get(kind, kind), train, arguments)
    begun = time.process_time()
    drawn = draw(arguments.patients)
    sample_s = time.process_time() - begun
    drawn = pd.DataFrame(drawn, columns=train.columns)
    drawn.apply(pd.to_numeric).to_parquet(arguments.out)
    package = {"smartnoise": "smartnoise-synth"}.get(family, family)
    print(json.dumps({"fit_s": fit_s, "sample_s": sample_s, "epochs": epochs, "version": version(package)}))


if __name__ == "__main__":
    main()
