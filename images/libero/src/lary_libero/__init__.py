"""The simulator LIBERO: episodes that are a function of (suite, task, state, seed), and data made of them."""
