"""Scores of finished work in the LAM bench: leaderboard, comparisons, averages, HTML report."""
