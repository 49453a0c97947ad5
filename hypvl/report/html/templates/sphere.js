"use strict";
// Directions of images and texts on a sphere, as in the figures of I0T: drag or use the arrow keys to turn it.

function sphereView(model) {
  const { sphere, plane, images } = model;
  const canvas = h("canvas", {
    class: "sphere", tabindex: "0", role: "img",
    "aria-label": "Directions of images and texts on a sphere; arrow keys turn it.",
  });
  let [yaw, pitch] = [0.35, 0.3];
  let drawn = [];

  function turn([x, y, z]) {
    // The first axis, the gap, lies to the right; the second goes up.
    const [a, b] = [x * Math.cos(yaw) + z * Math.sin(yaw), -x * Math.sin(yaw) + z * Math.cos(yaw)];
    return [a, y * Math.cos(pitch) - b * Math.sin(pitch), y * Math.sin(pitch) + b * Math.cos(pitch)];
  }

  function draw() {
    const side = canvas.clientWidth || 360;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(side * ratio)) canvas.width = canvas.height = Math.round(side * ratio);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const pen = canvas.getContext("2d");
    const r = side * 0.44;
    const at = ([x, y]) => [side / 2 + r * x, side / 2 - r * y];
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, side, side);
    const shade = pen.createRadialGradient(side * 0.42, side * 0.38, r * 0.1, side / 2, side / 2, r);
    shade.addColorStop(0, color("raised"));
    shade.addColorStop(1, color("sunken"));
    pen.fillStyle = shade;
    pen.beginPath();
    pen.arc(side / 2, side / 2, r, 0, 2 * Math.PI);
    pen.fill();
    pen.strokeStyle = color("line");
    pen.lineWidth = 1;
    pen.stroke();
    for (const circle of grid) {
      pen.beginPath();
      let open = false;
      for (const point of circle.map(turn)) {
        if (point[2] < 0) { open = false; continue; }
        const [x, y] = at(point);
        if (open) pen.lineTo(x, y); else pen.moveTo(x, y);
        open = true;
      }
      pen.stroke();
    }
    drawn = sphere.points.map((point, i) => ({ i, p: turn(point) })).sort((a, b) => a.p[2] - b.p[2]);
    for (const { i, p } of drawn) {
      const kind = plane.points[i].modality;
      const [x, y] = at(p);
      const size = side * 0.0085;
      pen.globalAlpha = p[2] < 0 ? 0.18 : 0.85;
      pen.fillStyle = color(kind);
      pen.beginPath();
      if (kind === "image") pen.arc(x, y, size, 0, 2 * Math.PI);
      else { pen.moveTo(x, y - size * 1.3); pen.lineTo(x + size * 1.2, y + size); pen.lineTo(x - size * 1.2, y + size); }
      pen.fill();
    }
    pen.globalAlpha = 1;
    for (const kind of ["image", "text"]) arrow(kind, turn(sphere[`${kind}_centroid`]));

    function arrow(kind, point) {
      const [x, y] = at(point);
      pen.strokeStyle = pen.fillStyle = color(kind);
      pen.lineWidth = 3;
      pen.beginPath();
      pen.moveTo(side / 2, side / 2);
      pen.lineTo(x, y);
      pen.stroke();
      pen.beginPath();
      pen.arc(x, y, side * 0.017, 0, 2 * Math.PI);
      pen.fill();
      pen.lineWidth = 2;
      pen.strokeStyle = color("paper");
      pen.stroke();
      pen.font = `600 ${Math.round(side * 0.034)}px system-ui, sans-serif`;
      pen.textAlign = x < side / 2 ? "right" : "left";
      pen.lineWidth = 4;
      const label = `mean ${kind}`;
      const shift = (x < side / 2 ? -1 : 1) * side * 0.03;
      pen.strokeText(label, x + shift, y - side * 0.02);
      pen.fillText(label, x + shift, y - side * 0.02);
    }
  }

  const circleOf = (f) => Array.from({ length: 73 }, (_, k) => f((k * Math.PI) / 36));
  const grid = [
    ...[-0.6, 0, 0.6].map((height) => circleOf((t) => [Math.sqrt(1 - height ** 2) * Math.cos(t), height, Math.sqrt(1 - height ** 2) * Math.sin(t)])),
    ...[0, 1, 2, 3].map((k) => circleOf((t) => [Math.cos(t) * Math.cos((k * Math.PI) / 4), Math.sin(t), Math.cos(t) * Math.sin((k * Math.PI) / 4)])),
  ];

  function near(event) {
    const area = canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - area.left - area.width / 2) / (area.width * 0.44), (area.height / 2 - event.clientY + area.top) / (area.width * 0.44)];
    const hits = drawn.filter(({ p }) => p[2] >= 0 && Math.hypot(p[0] - x, p[1] - y) < 0.045);
    return hits.length ? hits[hits.length - 1].i : null;
  }

  let last = null;
  canvas.addEventListener("pointerdown", (event) => { last = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("pointercancel", () => { last = null; });
  canvas.addEventListener("pointerleave", () => tip.hide());
  canvas.addEventListener("pointermove", (event) => {
    if (last) {
      yaw += (event.clientX - last[0]) / 160;
      pitch = Math.max(-1.5, Math.min(1.5, pitch + (event.clientY - last[1]) / 160));
      last = [event.clientX, event.clientY];
      tip.hide();
      draw();
      return;
    }
    const i = near(event);
    if (i === null) return tip.hide();
    const image = images[plane.points[i].image];
    tip.show(event.clientX, event.clientY, picture(image, 72), h("div", {}, h("b", {}, plane.points[i].modality), h("p", {}, image.caption)));
  });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
    if (!way) return;
    event.preventDefault();
    yaw += way[0];
    pitch = Math.max(-1.5, Math.min(1.5, pitch + way[1]));
    draw();
  });
  new ResizeObserver(draw).observe(canvas);
  document.addEventListener("themechange", draw);
  return figure("The gap on a sphere", [canvas, legend(["image", "images"], ["text", "texts"])],
    `Directions from the origin in three of ${model.geometry.dim} dimensions: the line between the two means, and the two widest directions across it (${number(100 * sphere.variance_kept, "%")}% of the variance of directions). Drag, or focus it and use the arrow keys.`);
}
