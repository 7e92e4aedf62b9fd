"""Tests of the arithmetic and of what a plan leaves out: python3 -m unittest discover -s bench/compare"""

import unittest

import figures
import statistics_of as stat


class Statistics(unittest.TestCase):
    def test_a_run_without_the_figure_is_left_out(self):
        self.assertEqual(stat.summary([3, None, 1, 2]), {"median": 2, "min": 1, "max": 3, "runs": 3})
        self.assertIsNone(stat.summary([None]))

    def test_a_slope_ignores_what_is_allocated_once(self):
        once, each = 5_000_000, 640
        at = lambda n: (n, once + n * each)
        self.assertEqual(stat.slope(at(1000), at(18000)), each)
        with self.assertRaises(ValueError):
            stat.slope(at(1000), at(1000))

    def test_a_line_through_points_on_a_line(self):
        per, once = stat.least_squares([(n, 7 + 3 * n) for n in (1, 5, 20)])
        self.assertAlmostEqual(per, 3)
        self.assertAlmostEqual(once, 7)
        with self.assertRaises(ValueError):
            stat.least_squares([(1, 1), (1, 2)])

    def test_ratios_are_of_the_same_run(self):
        self.assertEqual(stat.paired_ratios({0: 2, 1: 9, 2: 8}, {0: 1, 2: 4, 3: 5}), [2, 2])
        self.assertEqual(stat.paired_ratios({0: 2, 1: None}, {0: 0, 1: 3}), [])

    def test_pings_are_scaled_and_the_rest_is_not(self):
        # 10 000 connections: 1 ms/s without pings, 10 us per ping, pinged every 2 s for 4 s: 20 000 pings.
        us = stat.idle_cpu_us(0.002, 2, 0.004 + 0.2, 4, 10_000, 2, 24)
        self.assertAlmostEqual(us, (1000 + 10_000 / 24 * 10) / 10)
        # Noise below the base is no negative cost.
        self.assertAlmostEqual(stat.idle_cpu_us(0.002, 2, 0.001, 4, 10_000, 2, 24), 100)


class Figures(unittest.TestCase):
    USE = {"cpu_seconds": 0.5, "memory_before_bytes": 100, "memory_bytes": 300, "socket_memory_before_bytes": 0,
           "socket_memory_bytes": 40, "slab_before_bytes": 10, "slab_bytes": 50}
    RUN = {"connections_asked": 10, "open": 10, "logins": 10, "seconds": 2.0, "deliveries": 100, "answered": 50,
           "messages_in": 100, "bytes_in": 3300, "server": USE, "server_connecting": USE,
           "delivery_ns": {"p99": 9000, "p50": 1000}, "own_cpu_seconds": 1.0, "errors": {"connect": 0}}

    def test_of_a_run(self):
        self.assertEqual(figures.handshake(self.RUN)["cpu_us"], 50_000)
        self.assertEqual(figures.fanout(self.RUN), {"cpu_us": 5000, "per_s": 50, "frame_bytes": 33, "per_cpu_s": 200})
        self.assertEqual(figures.memory(self.RUN), {"user": 200, "kernel": 40})

    def test_a_run_that_lost_clients_has_no_figures(self):
        self.assertIsNone(figures.fault(self.RUN))
        self.assertIn("9 of 10", figures.fault({**self.RUN, "open": 9}))
        self.assertIn("server", figures.fault({**self.RUN, "server": None}))

    def test_a_fan_out_that_stood_still_is_a_fault(self):
        self.assertIsNone(figures.fanout({**self.RUN, "deliveries": 0}))


if __name__ == "__main__":
    unittest.main()
