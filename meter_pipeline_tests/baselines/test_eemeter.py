"""Agreement with eemeter's CalTRACK daily fit on its own sample meters.

eemeter 3.2.0 needs pandas below 2.2, numpy below 2, pytz and setuptools below 80, so it lives in an environment of its
own: name that environment's interpreter in METER_PIPELINE_EEMETER_PYTHON to run this.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import numpy as np
import pytest

from meter_pipeline.baselines import MODELS, fit_station, options_for

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

#: Prints, per sample meter, eemeter's choice and the days it was given (its daily mean temperature recovered from its
# own degree days); : of the third meter also with eleven days taken away.
ASK = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import eemeter, numpy
out = []
for name, drop in (("il-electricity-cdd-hdd-daily", 0), ("il-electricity-cdd-only-daily", 0), ("il-gas-hdd-only-daily", 11),
                   ("il-gas-hdd-only-daily", 0), ("il-gas-intercept-only-daily", 0)):
    meter, temperature, about = eemeter.load_sample(name)
    baseline, _ = eemeter.get_baseline_data(meter, end=about["blackout_start_date"], max_days=365)
    design = eemeter.create_caltrack_daily_design_matrix(baseline, temperature)
    design.iloc[5:5 + 13 * drop:13, design.columns.get_loc("meter_value")] = numpy.nan
    fuel = "gas" if about["interpretation"] == "gas" else "electricity"
    found = eemeter.fit_caltrack_usage_per_day_model(design, fit_cdd=fuel != "gas")
    days = design.dropna(subset=["cdd_30"])
    out.append({"fuel": fuel, "model": found.model.model_type, "params": found.model.model_params, "adj_r2": found.model.r_squared_adj,
                "usage": [None if v != v else v for v in days.meter_value],
                "temperatures": list(days.cdd_30 - days.hdd_30 + 30)})
json.dump(out, sys.stdout)
"""
NAMES = {"cdd_hdd": "hdd_cdd", "hdd_only": "hdd", "cdd_only": "cdd", "intercept_only": "intercept"}


@pytest.fixture(scope="module")
def theirs() -> list[dict[str, Any]]:
    interpreter = os.environ.get("METER_PIPELINE_EEMETER_PYTHON")
    if not interpreter:
        pytest.skip("METER_PIPELINE_EEMETER_PYTHON names no interpreter with eemeter")
    answer = subprocess.run([interpreter, "-c", ASK], capture_output=True, check=True, text=True, timeout=240)
    result: list[dict[str, Any]] = json.loads(answer.stdout)
    return result


def test_model_type_balance_points_and_coefficients_are_eemeters(theirs: list[dict[str, Any]]) -> None:
    assert len(theirs) == 5
    for meter in theirs:
        fit = fit_station(
            np.array([meter["usage"]], float), np.array(meter["temperatures"]), options_for(meter["fuel"])
        )
        params = meter["params"]
        assert MODELS[fit.model[0]] == NAMES[meter["model"]]
        for name, ours in (
            ("heating_balance_point", fit.hdd_balance_f[0]),
            ("cooling_balance_point", fit.cdd_balance_f[0]),
        ):
            assert ours == params[name] if name in params else np.isnan(ours)
        assert fit.intercept[0] == pytest.approx(params["intercept"], abs=1e-6)
        assert fit.hdd_beta[0] == pytest.approx(params.get("beta_hdd", 0), abs=1e-6)
        assert fit.cdd_beta[0] == pytest.approx(params.get("beta_cdd", 0), abs=1e-6)
        assert fit.adj_r2[0] == pytest.approx(meter["adj_r2"], abs=1e-9)
