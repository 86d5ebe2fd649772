// Charts of the dashboard: <figure data-chart="JSON">, each next to a table with the same numbers.
"use strict";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// One small panel per capability: the failure rate over rounds within its interval.
function trends({ rounds, panels }, width) {
  const columns = Math.max(1, Math.min(4, Math.floor(width / 160)));
  const [cell, tall] = [width / columns, 150]; // pixels
  const option = { animation: false, grid: [], xAxis: [], yAxis: [], series: [],
    tooltip: { trigger: "axis", renderMode: "richText", backgroundColor: color("panel"), borderColor: color("line"),
      textStyle: { color: color("ink") } } };
  panels.forEach(({ name, rates }, i) => {
    const [left, top] = [(i % columns) * cell, Math.floor(i / columns) * tall];
    const axis = { gridIndex: i, axisLine: { lineStyle: { color: color("line") } }, axisTick: { show: false },
      axisLabel: { color: color("muted"), fontSize: 11 } };
    option.grid.push({ left: left + 40, width: cell - 56, top: top + 28, height: tall - 62 });
    option.xAxis.push({ ...axis, type: "category", data: rounds.map((n) => `${n}`), boundaryGap: rounds.length < 2 });
    option.yAxis.push({ ...axis, type: "value", min: 0, max: 1, interval: 0.5, name,
      nameTextStyle: { color: color("ink"), fontSize: 13, fontWeight: 600, align: "left", padding: [0, 0, 0, -30] }, splitLine: { lineStyle: { color: color("line") } },
      axisLabel: { ...axis.axisLabel, formatter: (v) => `${100 * v}%` } });
    const part = (k) => rates.map((r) => (r ? r[k] : null));
    const plain = { type: "line", xAxisIndex: i, yAxisIndex: i, symbol: "none", lineStyle: { opacity: 0 },
      stack: `band ${i}`, tooltip: { show: false }, silent: true };
    option.series.push(
      { ...plain, data: part(1) },
      { ...plain, data: rates.map((r) => (r ? r[2] - r[1] : null)), areaStyle: { color: color("candidate"), opacity: 0.18 } },
      { type: "line", name, xAxisIndex: i, yAxisIndex: i, data: part(0), symbolSize: 7, color: color("candidate"),
        tooltip: { valueFormatter: (v) => (v == null ? "–" : `${(100 * v).toFixed(0)} %`) } });
  });
  return [option, Math.ceil(panels.length / columns) * tall];
}

// One metric of several training runs over their steps. The classes `line-N` of the style sheet have the same colours.
const lineColors = ["candidate", "control", "pretraining", "human", "rl", "unrouted"];

function curves({ metric, lines }) {
  const axis = { type: "value", axisLine: { lineStyle: { color: color("line") } }, axisLabel: { color: color("muted"), fontSize: 11 },
    splitLine: { lineStyle: { color: color("line") } } };
  const series = lines.map(({ name, points }, i) => ({ type: "line", name, data: points, showSymbol: false,
    color: color(lineColors[i % lineColors.length]), lineStyle: { width: 2 } }));
  const option = { animation: false, grid: { left: 56, right: 16, top: 32, bottom: 40 },
    xAxis: { ...axis, name: "step", nameLocation: "middle", nameGap: 26, nameTextStyle: { color: color("muted") }, splitLine: { show: false } },
    yAxis: { ...axis, scale: true, name: metric, nameTextStyle: { color: color("muted"), align: "left", padding: [0, 0, 0, -40] } }, series };
  return [option, 340];
}

const kinds = { trends, curves };
const drawn = new Map();

function draw(figure) {
  const data = JSON.parse(figure.dataset.chart);
  const [option, height] = kinds[data.kind](data, figure.clientWidth);
  const chart = drawn.get(figure) ?? echarts.init(figure, null, { height });
  drawn.set(figure, chart);
  chart.resize({ height });
  chart.setOption(option, true);
}

const drawAll = () => document.querySelectorAll("figure[data-chart]").forEach(draw);
addEventListener("DOMContentLoaded", drawAll);
addEventListener("htmx:afterSettle", drawAll);
addEventListener("resize", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
