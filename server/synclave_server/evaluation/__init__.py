"""How close synthetic patients are to real ones, how useful, and what the run behind them spent."""
