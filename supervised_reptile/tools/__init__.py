"""Programs around the learner: fetch, export, demo, example task, ship."""
