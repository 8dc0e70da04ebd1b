// What lies over the micrograph: circles of marks and proposals, junk, the brush, a box.

const STYLE = getComputedStyle(document.documentElement);
const COLOURS = Object.fromEntries(
  ['particle', 'negative', 'junk', 'accent'].map((name) => [
    name,
    STYLE.getPropertyValue(`--${name}`).trim(),
  ]),
);
// Of proposals, from low scores to high ones, and neither that of particles nor of negatives
const PROPOSED = ['#6f8cff', '#94b2ff', '#cdd8ff', '#ffeaa6', '#ffd21f'];
const LARGEST_PICTURE_PX = 80; // radius, in px of the screen

function colourOf(kind) {
  if (kind === 'hovered') return '#fff';
  const [name, step] = kind.split(' ');
  return step === undefined ? COLOURS[name] : PROPOSED[step];
}

export class Overlay {
  constructor(canvas, viewer) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.junk = document.createElement('canvas');
    this.viewer = viewer;
    this.pictures = new Map();
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
    if (this.ratio !== viewer.ratio) this.pictures.clear();
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
  }

  drawMarks({ labels, diameter, dragged, hovered }) {
    for (const [id, known] of labels.marks) {
      const mark = dragged?.id === id ? { ...known, ...dragged.to } : known;
      const kind = hovered === id ? 'hovered' : mark.particle ? 'particle' : 'negative';
      this.drawAt(mark, diameter / 2, kind);
    }
  }

  drawProposals({ proposals, diameter }) {
    for (const proposal of proposals ?? []) {
      const step = Math.min(PROPOSED.length - 1, Math.floor(proposal.rank * PROPOSED.length));
      this.drawAt(proposal, 0.46 * diameter, `proposal ${step}`);
    }
  }

  /** Draw a circle: a picture of one while it is small, which is many times as fast as a path. */
  drawAt(place, radius, kind) {
    if (!this.isSeen(place, radius)) return;
    const { context, viewer, ratio } = this;
    const scale = viewer.scale * ratio;
    const x = (place.x - viewer.left) * scale;
    const y = (place.y - viewer.top) * scale;
    const r = radius * scale;
    if (r > LARGEST_PICTURE_PX) {
      context.setTransform(1, 0, 0, 1, x, y);
      this.paint(context, r, kind);
      context.setTransform(1, 0, 0, 1, 0, 0);
      return;
    }
    const picture = this.picture(r, kind);
    context.drawImage(picture, Math.round(x - picture.width / 2), Math.round(y - picture.width / 2));
  }

  picture(r, kind) {
    const key = `${kind} ${r.toFixed(1)}`;
    if (!this.pictures.has(key)) {
      if (this.pictures.size > 100) this.pictures.clear();
      const picture = document.createElement('canvas');
      picture.width = 2 * Math.ceil(r + 3 * this.ratio);
      picture.height = picture.width;
      const context = picture.getContext('2d');
      context.translate(picture.width / 2, picture.width / 2);
      this.paint(context, r, kind);
      this.pictures.set(key, picture);
    }
    return this.pictures.get(key);
  }

  /** Paint a circle about the origin over a dark one, to be seen on bright and on dark ground. */
  paint(context, r, kind) {
    const px = this.ratio;
    const path = new Path2D();
    path.arc(0, 0, r, 0, 2 * Math.PI);
    if (kind === 'negative') {
      path.moveTo(-r * Math.SQRT1_2, -r * Math.SQRT1_2);
      path.lineTo(r * Math.SQRT1_2, r * Math.SQRT1_2);
    }
    context.lineWidth = 4 * px;
    context.strokeStyle = '#0008';
    context.stroke(path);
    context.lineWidth = (kind === 'hovered' ? 3 : 2) * px;
    context.strokeStyle = colourOf(kind);
    if (kind.startsWith('proposal')) context.setLineDash([5 * px, 4 * px]);
    context.stroke(path);
    context.setLineDash([]);
    if (kind === 'particle') {
      context.fillStyle = COLOURS.particle;
      context.fillRect(-px, -px, 2 * px, 2 * px);
    }
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
