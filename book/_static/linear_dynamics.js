/* Learning curves of two features in a deep linear JEPA and MAE, redrawn as sliders move.

Plain JavaScript without any library. `node linear_dynamics.js > linear_dynamics.html` writes the
fragment that the page includes, with the figure at its initial settings drawn in: without
JavaScript that figure stays. A test compares both files, and the numbers with the Python library.

The equations are those of src/sparsejepa/theory/critical_times.py. With u = w^(1/L), u* its fixed
point, s = u / u* and z = ln(s / (1 - s)), time is an integral of a smooth function,
JEPA: dt = (L / lambda) u^(1 - 2L) dz, MAE: dt = (L / lambda) u^(1 - L) / (1 + s + … + s^L) dz. */
"use strict";

const INITIAL = { depth: 3, epsilon: -2, lambdaA: 1.2, rhoA: 0.4, lambdaB: 1, rhoB: 0.9 };
const SLIDERS = [
  { name: "depth", label: "Depth L", min: 1, max: 8, step: 1, show: (v) => String(v) },
  { name: "epsilon", label: "Initial gain ε", min: -8, max: -0.5, step: 0.1, show: (v) => number(10 ** v) },
  { name: "lambdaA", label: "A: covariance λ", min: 0.2, max: 2, step: 0.05, show: (v) => v.toFixed(2) },
  { name: "rhoA", label: "A: regression coefficient ρ", min: 0.05, max: 1, step: 0.05, show: (v) => v.toFixed(2) },
  { name: "lambdaB", label: "B: covariance λ", min: 0.2, max: 2, step: 0.05, show: (v) => v.toFixed(2) },
  { name: "rhoB", label: "B: regression coefficient ρ", min: 0.05, max: 1, step: 0.05, show: (v) => v.toFixed(2) },
];
const NAMES = { jepa: "JEPA", mae: "MAE" };
const PIECES = 300;
// Gauss-Legendre rule of four points on [-1, 1]: point, weight.
const RULE = [
  [-0.8611363115940526, 0.34785484513745385],
  [-0.33998104358485626, 0.6521451548625461],
  [0.33998104358485626, 0.6521451548625461],
  [0.8611363115940526, 0.34785484513745385],
];

/* Times at which the shares of the fixed point are reached, shares increasing; Infinity where the
   feature begins at or above its fixed point and so is not learned, 0 for a share behind it. */
function reachTimes(objective, depth, lambda, rho, epsilon, shares) {
  const end = objective === "jepa" ? rho : rho ** (1 / (depth + 1));
  const start = epsilon ** (1 / depth) / end;
  if (start >= 1) return shares.map(() => Infinity);
  const slope = (z) => {
    const s = 1 / (1 + Math.exp(-z));
    if (objective === "jepa") return (end * s) ** (1 - 2 * depth);
    let sum = 0;
    for (let n = 0; n <= depth; n += 1) sum += s ** n;
    return (end * s) ** (1 - depth) / sum;
  };
  const logit = (s) => Math.log(s / (1 - s));
  let time = 0;
  let from = logit(start);
  return shares.map((share) => {
    const to = logit(share ** (1 / depth));
    if (to <= from) return (depth / lambda) * time;
    const count = Math.max(1, Math.ceil((to - from) / 0.05));
    const half = (to - from) / count / 2;
    for (let piece = 0; piece < count; piece += 1) {
      const middle = from + (2 * piece + 1) * half;
      for (const [point, weight] of RULE) time += weight * half * slope(middle + half * point);
    }
    from = to;
    return (depth / lambda) * time;
  });
}

function features(state) {
  return [
    { name: "A", lambda: state.lambdaA, rho: state.rhoA },
    { name: "B", lambda: state.lambdaB, rho: state.rhoB },
  ];
}

/* What one objective does with both features: curves as [time, share] and half-way times. */
function solve(objective, state) {
  const epsilon = 10 ** state.epsilon;
  return features(state).map(({ name, lambda, rho }) => {
    const depth = state.depth;
    const end = objective === "jepa" ? rho ** depth : rho ** (depth / (depth + 1));
    const first = epsilon / end;
    const shares = [];
    if (first < 1) {
      const low = Math.log(first / (1 - first));
      const high = Math.log(0.999 / 0.001);
      for (let i = 1; i <= PIECES; i += 1) shares.push(1 / (1 + Math.exp(-(low + ((high - low) * i) / PIECES))));
    }
    const times = reachTimes(objective, depth, lambda, rho, epsilon, shares);
    const [half] = reachTimes(objective, depth, lambda, rho, epsilon, [0.5]);
    const curve = shares.map((share, i) => [times[i], share]);
    return { name, first, half: first >= 0.5 ? (first >= 1 ? Infinity : 0) : half, curve };
  });
}

function number(value) {
  if (value !== 0 && (value >= 1e5 || value < 0.01)) {
    const [digits, power] = value.toExponential(1).split("e");
    return `${digits}·10${[...String(Number(power))].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("")}`;
  }
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/* Round times between two powers of ten: 1, 2, 5 and so on, or powers alone over a wide range. */
function ticks(low, high) {
  const wide = high - low > 2.5;
  const every = wide ? Math.ceil((high - low) / 5) : 1;
  const found = [];
  for (let power = Math.floor(low); power <= high; power += every) {
    for (const digit of wide ? [1] : [1, 2, 5]) {
      const tick = digit * 10 ** power;
      if (Math.log10(tick) >= low && Math.log10(tick) <= high) found.push(tick);
    }
  }
  return found;
}

function shown(tick) {
  return tick >= 0.01 && tick < 1e5 ? String(Number(tick.toPrecision(1))) : number(tick).replace(".0·", "·").replace(/^1·/, "");
}

/* The outcome of one objective in a sentence. */
function sentence(objective, solved) {
  const reasons = solved.filter(({ first }) => first >= 0.5).map(({ name, first }) =>
    first >= 1
      ? `${name} begins above its fixed point and decays, which the theory does not cover`
      : `${name} begins beyond half of its fixed point`);
  if (reasons.length) return `${NAMES[objective]}: ${reasons.join("; ")}.`;
  const [a, b] = solved.map(({ half }) => half);
  const ratio = a / b;
  const order = Math.abs(ratio - 1) < 5e-3 ? "both at once" : ratio > 1 ? "B first" : "A first";
  return `${NAMES[objective]}: half of A is learned at t = ${number(a)}, half of B at t = ${number(b)}: ${order} (t_A / t_B = ${ratio.toFixed(2)}).`;
}

const FRAME = { width: 380, height: 300, top: 34, bottom: 44, left: 58, panel: 312 };

/* One objective as SVG; `words` is what it shows. */
function panel(objective, solved, words) {
  const learned = solved.filter(({ curve }) => curve.length);
  const { top, height, bottom, left, panel: width } = FRAME;
  const floor = height - bottom;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" class="ld-figure" viewBox="0 0 ${FRAME.width} ${height}" role="img" aria-label="Learning curves of features A and B. ${words}">`,
    `<text class="ld-title" x="${left + width / 2}" y="20">${NAMES[objective]}</text>`,
    `<text class="ld-tick" transform="translate(14 ${(top + floor) / 2}) rotate(-90)">gain / fixed point</text>`,
  ];
  const y = (share) => (floor - share * (floor - top)).toFixed(1);
  for (const share of [0, 0.5, 1]) {
    parts.push(`<path class="ld-grid" d="M${left} ${y(share)}h${width}"/>`);
    parts.push(`<text class="ld-tick ld-end" x="${left - 6}" y="${Number(y(share)) + 4}">${share}</text>`);
  }
  if (learned.length) {
    const halves = learned.map(({ half, curve }) => half || curve[0][0]);
    const low = Math.log10(Math.min(...halves)) - 1;
    const high = Math.log10(Math.max(...learned.map(({ curve }) => curve[curve.length - 1][0]))) + 0.15;
    const x = (time) => left + (width * (Math.log10(time) - low)) / (high - low);
    for (const tick of ticks(low, high)) {
      const at = x(tick).toFixed(1);
      parts.push(`<path class="ld-grid" d="M${at} ${top}V${floor}"/>`);
      parts.push(`<text class="ld-tick" x="${at}" y="${floor + 16}">${shown(tick)}</text>`);
    }
    const earlier = Math.min(...learned.map(({ half }) => half));
    for (const { name, first, half, curve } of learned) {
      const points = curve.filter(([time]) => Math.log10(time) >= low);
      const path = [[10 ** low, curve.find(([time]) => Math.log10(time) >= low)?.[1] ?? first], ...points, [10 ** high, 1]];
      const d = path.map(([time, share], i) => `${i ? "L" : "M"}${x(time).toFixed(1)} ${y(share)}`).join("");
      parts.push(`<path class="ld-curve ld-${name}" d="${d}"/>`);
      if (half > 0) {
        parts.push(`<circle class="ld-${name} ld-half" cx="${x(half).toFixed(1)}" cy="${y(0.5)}" r="4.5"/>`);
        // The earlier feature's name on the left, the later one's on the right, clear of each other.
        const [dx, dy] = half === earlier && (learned.length < 2 || name === "A" || learned[0].half !== half) ? [-10, -8] : [10, 16];
        parts.push(`<text class="ld-name" x="${(x(half) + dx).toFixed(1)}" y="${Number(y(0.5)) + dy}">${name}</text>`);
      } else {
        parts.push(`<text class="ld-name" x="${left + 12}" y="${Number(y(first)) - 8}">${name}</text>`);
      }
    }
  }
  parts.push(`<text class="ld-tick" x="${left + width / 2}" y="${height - 8}">time t (logarithmic)</text>`, "</svg>");
  return parts.join("\n");
}

/* The figure as SVG, a picture an objective, and the same in words. */
function render(state) {
  const objectives = Object.keys(NAMES);
  const solved = objectives.map((objective) => solve(objective, state));
  const words = objectives.map((objective, i) => sentence(objective, solved[i]));
  const svg = objectives.map((objective, i) => panel(objective, solved[i], words[i])).join("\n");
  return { svg, words };
}

function fragment() {
  const { svg, words } = render(INITIAL);
  const rows = SLIDERS.map(({ name, label, min, max, step, show }) =>
    `<div class="ld-row"><label for="ld-${name}">${label}</label><input type="range" id="ld-${name}" name="${name}" min="${min}" max="${max}" step="${step}" value="${INITIAL[name]}" aria-valuetext="${show(INITIAL[name])}"><output for="ld-${name}">${show(INITIAL[name])}</output></div>`).join("\n");
  return `<link rel="stylesheet" href="../_static/linear_dynamics.css">
<div class="ld" id="linear-dynamics">
<form class="ld-form" hidden>
${rows}
</form>
<div class="ld-picture">${svg}</div>
<div class="ld-words" aria-live="polite">
${words.map((line) => `<p>${line}</p>`).join("\n")}
</div>
<noscript><p>With JavaScript, sliders change depth, initial gain and both features. The figure above shows L = ${INITIAL.depth}, ε = 0.01, A with λ = ${INITIAL.lambdaA} and ρ = ${INITIAL.rhoA}, B with λ = ${INITIAL.lambdaB} and ρ = ${INITIAL.rhoB}.</p></noscript>
</div>
<script src="../_static/linear_dynamics.js"></script>
`;
}

function start(root) {
  const form = root.querySelector("form");
  const draw = () => {
    const state = {};
    for (const { name, show } of SLIDERS) {
      const input = form.elements[name];
      state[name] = Number(input.value);
      const shown = show(state[name]);
      input.setAttribute("aria-valuetext", shown);
      input.nextElementSibling.textContent = shown;
    }
    const { svg, words } = render(state);
    root.querySelector(".ld-picture").innerHTML = svg;
    root.querySelector(".ld-words").innerHTML = words.map((line) => `<p>${line}</p>`).join("");
  };
  form.addEventListener("input", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  draw();
}

if (typeof document !== "undefined") {
  start(document.getElementById("linear-dynamics"));
} else {
  module.exports = { reachTimes, render, fragment, INITIAL };
  if (require.main === module) process.stdout.write(fragment());
}
