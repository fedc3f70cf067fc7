// The order of the takes of a shot from duels between them. Touches no element, and knows no clip.

/** Spread of the takes' strengths before any duel. So wide that it moves no order, yet a take that never lost has one. */
const PRIOR_SD = 5;
const FIT_STEPS = 60;

const logistic = (x) => 1 / (1 + Math.exp(-x));

/**
 * A Bradley-Terry fit: the strengths that make the duels likeliest, by Newton's method, and how sure they are.
 * `wins[i][j]`: how often i was preferred to j. Returns {strengths, covariance}, on the scale of log odds.
 */
function fitDuels(wins) {
  const n = wins.length;
  const strengths = new Array(n).fill(0);
  let covariance = [];
  for (let step = 0; step < FIT_STEPS; step += 1) {
    const slope = strengths.map((strength) => -strength / PRIOR_SD ** 2);
    const bend = strengths.map((_, i) => strengths.map((__, j) => (i === j ? 1 / PRIOR_SD ** 2 : 0)));
    for (let i = 0; i < n; i += 1)
      for (let j = 0; j < n; j += 1) {
        const duels = wins[i][j] + wins[j][i];
        if (i === j || !duels) continue;
        const p = logistic(strengths[i] - strengths[j]);
        slope[i] += wins[i][j] - duels * p;
        bend[i][i] += duels * p * (1 - p);
        bend[i][j] -= duels * p * (1 - p);
      }
    covariance = inverse(bend);
    const move = covariance.map((row) => row.reduce((sum, value, j) => sum + value * slope[j], 0));
    const longest = Math.max(...move.map(Math.abs));
    for (let i = 0; i < n; i += 1) strengths[i] += longest > 2 ? (move[i] * 2) / longest : move[i];
    if (longest < 1e-10) break;
  }
  return { strengths, covariance };
}

/** The inverse of a small symmetric matrix whose diagonal outweighs the rest. */
function inverse(matrix) {
  const n = matrix.length;
  const work = matrix.map((row, i) => [...row, ...row.map((_, j) => (i === j ? 1 : 0))]);
  for (let at = 0; at < n; at += 1) {
    const lead = work[at][at];
    for (let k = 0; k < 2 * n; k += 1) work[at][k] /= lead;
    for (let i = 0; i < n; i += 1) {
      if (i === at || !work[i][at]) continue;
      const factor = work[i][at];
      for (let k = 0; k < 2 * n; k += 1) work[i][k] -= factor * work[at][k];
    }
  }
  return work.map((row) => row.slice(n));
}

/** How probable it is that i is the stronger one, between 0 and 1. */
function sureness({ strengths, covariance }, i, j) {
  const spread = Math.sqrt(Math.max(1e-12, covariance[i][i] + covariance[j][j] - 2 * covariance[i][j]));
  return normal((strengths[i] - strengths[j]) / spread);
}

/** The normal distribution, to seven digits (Abramowitz and Stegun 26.2.17). */
function normal(z) {
  const t = 1 / (1 + 0.2316419 * Math.abs(z));
  const series = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  const tail = (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * series;
  return z >= 0 ? 1 - tail : tail;
}

/** The pair whose next duel tells most: near in strength, little known, and not just seen. */
function nextPair(wins, { strengths, covariance }, last = []) {
  let best = null;
  let most = -1;
  for (let i = 0; i < wins.length; i += 1)
    for (let j = i + 1; j < wins.length; j += 1) {
      const p = logistic(strengths[i] - strengths[j]);
      const spread = covariance[i][i] + covariance[j][j] - 2 * covariance[i][j];
      const isLast = last.includes(i) && last.includes(j);
      const gain = isLast ? -0.5 : (p * (1 - p) * spread) / (1 + wins[i][j] + wins[j][i]);
      if (gain > most) [best, most] = [[i, j], gain];
    }
  return best;
}
