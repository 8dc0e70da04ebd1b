// What lies over the micrograph: circles of marks and proposals, junk, the brush, a box.

const STYLE = getComputedStyle(document.documentElement);
const COLOURS = Object.fromEntries(
  ['particle', 'negative', 'junk', 'proposal', 'accent'].map((name) => [
    name,
    STYLE.getPropertyValue(`--${name}`).trim(),
  ]),
);

export class Overlay {
  constructor(canvas, viewer) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.junk = document.createElement('canvas');
    this.viewer = viewer;
  }

  /** scene: labels, diameter, proposals, dragged, hovered, pointer, brush, stroke, box, visible. */
  draw(scene) {
    const { canvas, context, viewer } = this;
    const source = viewer.canvas;
    if (canvas.width !== source.width || canvas.height !== source.height) {
      canvas.width = source.width;
      canvas.height = source.height;
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!viewer.micrograph) return;
    this.ratio = viewer.ratio;
    if (scene.visible) {
      this.drawJunk(scene);
      this.drawProposals(scene);
      this.drawMarks(scene);
    }
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.drawPointer(scene);
    if (scene.box) {
      const { x0, y0, x1, y1 } = scene.box;
      context.setLineDash([5, 4]);
      context.strokeStyle = COLOURS.accent;
      context.lineWidth = 1.5;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
      context.setLineDash([]);
    }
  }

  /** Transform a context so that it draws in px of the micrograph. */
  toMicrograph(context) {
    const scale = this.viewer.scale * this.ratio;
    context.setTransform(scale, 0, 0, scale, -this.viewer.left * scale, -this.viewer.top * scale);
    return scale;
  }

  drawMarks({ labels, diameter, dragged, hovered }) {
    const { context } = this;
    const scale = this.toMicrograph(context);
    const radius = diameter / 2;
    const px = this.ratio / scale; // a css px
    const seen = (m) => this.isSeen(m, radius);
    const particles = [];
    const negatives = [];
    for (const [id, known] of labels.marks) {
      const mark = dragged?.id === id ? { ...known, ...dragged.to } : known;
      if (seen(mark)) (mark.particle ? particles : negatives).push(mark);
    }
    const circles = (marks) => {
      const path = new Path2D();
      for (const { y, x } of marks) {
        path.moveTo(x + radius, y);
        path.arc(x, y, radius, 0, 2 * Math.PI);
      }
      return path;
    };
    const dots = new Path2D();
    for (const { y, x } of particles) dots.rect(x - px, y - px, 2 * px, 2 * px);
    const crosses = circles(negatives);
    const arm = radius * Math.SQRT1_2;
    for (const { y, x } of negatives) {
      crosses.moveTo(x - arm, y - arm);
      crosses.lineTo(x + arm, y + arm);
    }
    const rings = circles(particles);
    for (const [path, colour] of [[rings, COLOURS.particle], [crosses, COLOURS.negative]]) {
      this.haloed(path, colour, px);
    }
    context.fillStyle = COLOURS.particle;
    context.fill(dots);
    const mark = hovered && labels.marks.get(hovered);
    if (mark) {
      context.lineWidth = 3.5 * px;
      context.strokeStyle = '#fff';
      context.stroke(circles([dragged?.id === hovered ? { ...mark, ...dragged.to } : mark]));
    }
  }

  /** Stroke over a dark line, to be seen on bright and on dark ground. */
  haloed(path, colour, px) {
    const { context } = this;
    context.lineWidth = 4 * px;
    context.strokeStyle = '#0008';
    context.stroke(path);
    context.lineWidth = 2 * px;
    context.strokeStyle = colour;
    context.stroke(path);
  }

  drawProposals({ proposals, diameter }) {
    if (!proposals?.length) return;
    const { context } = this;
    const scale = this.toMicrograph(context);
    const radius = 0.46 * diameter;
    const px = this.ratio / scale;
    context.setLineDash([5 * px, 4 * px]);
    context.lineWidth = 2 * px;
    // Five colours from low to high, each one path
    const steps = Array.from({ length: 5 }, () => new Path2D());
    for (const proposal of proposals) {
      if (!this.isSeen(proposal, radius)) continue;
      const path = steps[Math.min(4, Math.floor(proposal.rank * 5))];
      path.moveTo(proposal.x + radius, proposal.y);
      path.arc(proposal.x, proposal.y, radius, 0, 2 * Math.PI);
    }
    steps.forEach((path, step) => {
      context.strokeStyle = `hsl(${20 + 10 * step} 100% ${48 + 5 * step}%)`;
      context.stroke(path);
    });
    context.setLineDash([]);
  }

  isSeen({ y, x }, margin) {
    const { viewer } = this;
    const bottom = viewer.top + this.canvas.height / this.ratio / viewer.scale;
    const right = viewer.left + this.canvas.width / this.ratio / viewer.scale;
    return x > viewer.left - margin && x < right + margin && y > viewer.top - margin &&
      y < bottom + margin;
  }

  drawJunk({ labels, stroke }) {
    const strokes = stroke ? [...labels.junk, stroke] : labels.junk;
    if (!strokes.length) return;
    const { junk } = this;
    junk.width = this.canvas.width;
    junk.height = this.canvas.height;
    const context = junk.getContext('2d');
    this.toMicrograph(context);
    const [height, width] = this.viewer.micrograph.size_px;
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
    context.lineCap = 'round';
    context.lineJoin = 'round';
    context.strokeStyle = COLOURS.junk;
    context.fillStyle = COLOURS.junk;
    for (const { path, radius, erase } of strokes) {
      context.globalCompositeOperation = erase ? 'destination-out' : 'source-over';
      context.beginPath();
      if (path.length === 1) {
        context.arc(path[0][1], path[0][0], radius, 0, 2 * Math.PI);
        context.fill();
        continue;
      }
      context.lineWidth = 2 * radius;
      path.forEach(([y, x], number) => (number ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
    }
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.globalAlpha = 0.38;
    this.context.drawImage(junk, 0, 0);
    this.context.globalAlpha = 1;
  }

  /** A faint circle of the particle's size, or the brush, where the pointer is. */
  drawPointer({ pointer, brush, diameter, hovered, isReadOnly }) {
    if (!pointer || hovered || isReadOnly) return;
    const { context } = this;
    const radius = brush ?? diameter / 2;
    context.beginPath();
    context.arc(pointer.x, pointer.y, radius * this.viewer.scale, 0, 2 * Math.PI);
    context.lineWidth = 1.25;
    context.strokeStyle = brush ? COLOURS.junk : '#fffa';
    context.stroke();
  }
}
