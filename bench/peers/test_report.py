"""python -m unittest discover bench/peers"""

import unittest

from report import GOALS, PAIRS, Rounds, markdown
from subjects import SUBJECTS


def measurement(subject: str, round_: int, decode: float, foreign: float = 0.0) -> dict:
    return {"round": round_, "subject": subject, "foreign_cores": foreign, "result": {"decode": {"tokens_per_second": decode}}}


DECODE = "decode.tokens_per_second"


class RoundsTest(unittest.TestCase):
    def test_a_ratio_is_formed_within_a_round(self):
        # The machine halves its speed between the rounds. The medians alone would give 45 / 20.
        rounds = Rounds([measurement("a", 1, 60), measurement("b", 1, 30), measurement("a", 2, 30), measurement("b", 2, 10), measurement("a", 3, 99)])
        self.assertEqual(rounds.ratios(("a", DECODE), ("b", DECODE)), [2.0, 3.0])

    def test_the_quietest_attempt_counts(self):
        rounds = Rounds([measurement("a", 1, 7, foreign=0.9), measurement("a", 1, 40, foreign=0.02), measurement("a", 1, 9, foreign=0.5)])
        self.assertEqual(rounds.figure("a", DECODE), {1: 40.0})
        self.assertEqual(rounds.disturbed("a"), 0)

    def test_a_failure_is_no_figure(self):
        rounds = Rounds([{"round": 1, "subject": "a", "error": "exit code 1: gone"}])
        self.assertEqual(rounds.figure("a", DECODE), {})
        self.assertEqual(rounds.errors, {"a": "exit code 1: gone"})


class ReportTest(unittest.TestCase):
    def report(self, measurements: list[dict]) -> str:
        machine = {"cpu": "cpu", "cores": 2, "memory_bytes": 2**34, "node": "v20.20.2"}
        return markdown({"machine": machine, "commit": "0", "shape": "0.3b", "measurements": measurements}, SUBJECTS)

    def line(self, measurements: list[dict], start: str) -> str:
        [line] = [line for line in self.report(measurements).splitlines() if line.startswith(f"| {start}")]
        return line

    def test_a_goal_missed_says_so(self):
        measured = [measurement("ours_q8_fast", 1, 60), measurement("llama_cpp_qwen35_q8_0", 1, 48)]
        self.assertRegex(self.line(measured, "decode q8, over llama.cpp"), r"60\.0 \| 48\.0 \| \*\*1\.25\*\* \| 1\.50 \| missed \|$")
        measured = [measurement("ours_q8_fast", 1, 75), measurement("llama_cpp_qwen35_q8_0", 1, 48)]
        self.assertRegex(self.line(measured, "decode q8, over llama.cpp"), r"\*\*1\.56\*\* \| 1\.50 \| reached \|$")

    def test_what_was_not_measured_stays_in_the_table(self):
        measured = [measurement("ours_q8_fast", 1, 60), {"round": 1, "subject": "llama_cpp_qwen35_q8_0", "error": "exit code 1: no such package"}]
        self.assertIn("not measured", self.line(measured, "decode q8, over llama.cpp"))
        self.assertIn("no such package", self.line(measured, "llama.cpp, qwen35 shape, q8_0"))

    def test_goals_and_pairs_name_subjects_that_exist(self):
        names = {s.name for s in SUBJECTS}
        named = {subject for goal in GOALS for subject, _ in (goal.ours, goal.theirs)} | PAIRS.keys() | {p for peers in PAIRS.values() for p in peers}
        self.assertLessEqual(named, names)


if __name__ == "__main__":
    unittest.main()
