"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colours = () => dark.matches
    ? { ink: "#c3ccd8", grid: "#262d38", line: "#3b4554", card: "#161b22", hover: "#0e1116" }
    : { ink: "#414b59", grid: "#edf0f4", line: "#cbd2db", card: "#ffffff", hover: "#ffffff" };
  const template = () => {
    const c = colours();
    const axis = {
      gridcolor: c.grid, linecolor: c.line, tickcolor: c.line,
      zeroline: false, automargin: true, title: { standoff: 12 }, ticks: "outside", ticklen: 4,
    };
    return { layout: {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: c.ink, size: 13, family: getComputedStyle(document.body).fontFamily },
      colorway: ["#3b82f6", "#f59e0b", "#10b981", "#8b5cf6", "#ef4444", "#14b8a6", "#ec4899", "#94a3b8"],
      xaxis: axis, yaxis: axis, hovermode: "closest",
      hoverlabel: { align: "left", bgcolor: c.hover, bordercolor: c.line, font: { color: c.ink, size: 12.5 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: c.line, activecolor: c.ink },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      margin: { l: 64, r: 20, t: 36, b: 52 },
    } };
  };
  const config = {
    responsive: true, displaylogo: false, displayModeBar: "hover", plotlyServerURL: "",
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
  };
  const draw = () => {
    for (const place of document.querySelectorAll(".plot")) {
      const figure = JSON.parse(document.getElementById(place.id + "-data").textContent);
      figure.layout.template = template();
      Plotly.react(place, figure.data, figure.layout, config);
    }
  };
  draw();
  dark.addEventListener("change", draw);
})();
