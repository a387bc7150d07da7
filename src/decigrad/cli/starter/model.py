"""Which plants to run tomorrow: the decision as an optimization model.

Whatever has to be predicted is a parameter. Whatever is known when the decision is made (tomorrow's load)
is a parameter with known=True. Both are columns of the table; config.toml says which.
"""

import numpy as np

import decigrad as dg

CAPACITY = np.array([60.0, 50.0, 40.0, 80.0])  # MW of wind contract, solar contract, gas, grid
RISING = np.array([0.10, 0.15, 0.40, 0.30])  # how fast a source gets more expensive, €/MWh for each MW

model = dg.Model("power purchase")
buy = model.continuous("buy", shape=4, lb=0.0, ub=CAPACITY)
price = model.parameter("price", shape=4)  # predicted, €/MWh
load = model.parameter("load", known=True)  # known the day before, MW

model.minimize(dg.sum(price * buy) + 0.5 * dg.sum(RISING * buy * buy))
model.subject_to(dg.sum(buy) == load, name="load is met")
